"""Random numbers as a function of (seed, update, process): nothing to save, nothing to restore."""
import random

import numpy as np
import torch

from timm_alfa.data.order import seed_of


def seed_all(*parts) -> None:
    """Seeds Python, NumPy and torch on every device.

    The loop does so before each update, with (seed, update, process): dropout, noise and random starts of an update
    are then the same whether the run came there at a stretch or after a resume.
    """
    seed = seed_of(':'.join(map(str, parts)))
    random.seed(seed)
    np.random.seed(seed & 0xffffffff)
    torch.manual_seed(seed)
