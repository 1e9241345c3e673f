"""Random numbers as a function of (seed, update, process): nothing to save, nothing to restore."""
import hashlib
import random

import numpy as np
import torch


def derived_seed(*parts) -> int:
    """A seed of 63 bits from any parts; near parts give unrelated seeds."""
    digest = hashlib.blake2b(':'.join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def seed_all(*parts) -> None:
    """Seeds Python, NumPy and torch on every device.

    The loop does so before each update, with (seed, update, process): dropout, noise and random starts of an update
    are then the same whether the run came there at a stretch or after a resume.
    """
    seed = derived_seed(*parts)
    random.seed(seed)
    np.random.seed(seed & 0xffffffff)
    torch.manual_seed(seed)
