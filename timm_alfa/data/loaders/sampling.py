"""Order and randomness as pure functions: what a batch holds follows from seed, epoch, step and rank alone.

Nothing here reads or moves a global generator, which is what makes a resumed epoch equal to an undisturbed one.
"""

import random
from contextlib import contextmanager

import numpy as np
import torch

from timm_alfa.utils.rng import seed_of


def stream_seed(*parts) -> int:
    """A seed from anything with a stable `repr`."""
    return seed_of(repr(parts))


def stream(*parts) -> torch.Generator:
    """A CPU generator seeded by `parts`: draws do not depend on the device that trains."""
    return torch.Generator().manual_seed(stream_seed(*parts))


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Shuffled positions of an epoch, (count,) int64, the same for every rank and any number of processes."""
    return torch.randperm(count, generator=stream('order', seed, epoch))


def train_steps(count: int, batch_size: int, world_size: int) -> int:
    """Batches an epoch and rank: the incomplete last one is dropped, unless it would be the only one."""
    return max(1, count // (batch_size * world_size))


def train_slice(count: int, step: int, batch_size: int, rank: int, world_size: int) -> torch.Tensor:
    """Positions in the epoch's order that one rank takes at one step, (batch,) int64.

    A step's global batch is a run of `batch_size * world_size` positions, so that two processes with half of the
    batch size each see together what one sees alone.
    """
    if count < batch_size * world_size:
        return torch.tensor_split(torch.arange(count), world_size)[rank]
    first = (step * world_size + rank) * batch_size
    return torch.arange(first, first + batch_size)


def eval_slice(count: int, rank: int, world_size: int) -> torch.Tensor:
    """Positions one rank evaluates: over all ranks each exactly once, so that ranks may differ in length."""
    return torch.tensor_split(torch.arange(count), world_size)[rank]


def random_split(count: int, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted indices that stay, and sorted indices held out: `round(count * fraction)` of them, at least one."""
    held = max(1, round(count * fraction))
    order = torch.randperm(count, generator=stream('split', seed))
    return order[held:].sort().values, order[:held].sort().values


def random_subset(indices: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """`size` of `indices`, sorted; a larger subset of the same seed contains every smaller one."""
    chosen = torch.randperm(len(indices), generator=stream('subset', seed))[:size]
    return indices[chosen.sort().values]


@contextmanager
def seeded(seed: int, device: torch.device | None = None):
    """Python's, NumPy's and torch's global generators seeded inside, and as they were afterwards.

    Args:
        device: Its generator, too, where it is a CUDA device.
    """
    cuda = device is not None and device.type == 'cuda'
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    before_cuda = torch.cuda.get_rng_state(device) if cuda else None
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if cuda:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        if cuda:
            torch.cuda.set_rng_state(before_cuda, device)
