"""Order and randomness as pure functions: what a batch holds is a function of seed, epoch, step and rank alone.

Nothing here reads or advances a global generator, so that a resumed epoch is equal to an undisturbed one.
"""

import random
from collections import Counter
from contextlib import contextmanager
from typing import Iterator, Optional

import numpy as np
import torch

from timm_alfa.utils.rng import seed_of


def stream_seed(*parts) -> int:
    """Returns a seed from anything with a stable `repr`."""
    return seed_of(repr(parts))


def stream(*parts) -> torch.Generator:
    """Returns a CPU generator seeded by `parts`: draws do not depend on the device that trains."""
    return torch.Generator().manual_seed(stream_seed(*parts))


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Returns the shuffled positions of an epoch, (count,) int64: the same on every rank of any number of processes."""
    return torch.randperm(count, generator=stream('order', seed, epoch))


def balanced_order(targets: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    """Returns the positions of an epoch drawn with replacement, (count,) int64, each class equally likely.

    It is what `torch.utils.data.WeightedRandomSampler` draws with weights in inverse proportion to the classes' sizes.

    Args:
        targets: Labels by position, (count,).
    """
    weights = 1 / torch.bincount(targets)[targets].double()
    return torch.multinomial(weights, len(targets), replacement=True, generator=stream('order', seed, epoch))


def repeats(values: torch.Tensor) -> list[int]:
    """Returns for each value how often it has occurred before."""
    seen: Counter[int] = Counter()
    found = []
    for value in values.tolist():
        found.append(seen[value])
        seen[value] += 1
    return found


def train_steps(count: int, batch_size: int, world_size: int) -> int:
    """Returns the batches per epoch and rank: the incomplete last one is dropped, unless it would be the only one."""
    return max(1, count // (batch_size * world_size))


def train_slice(count: int, step: int, batch_size: int, rank: int, world_size: int) -> torch.Tensor:
    """Returns the positions in the epoch's order that one rank takes at one step, (batch,) int64.

    A step's global batch is a run of `batch_size * world_size` positions: two processes with half the batch size each
    see together what one process sees.
    """
    if count < batch_size * world_size:
        return torch.tensor_split(torch.arange(count), world_size)[rank]
    first = (step * world_size + rank) * batch_size
    return torch.arange(first, first + batch_size)


def eval_slice(count: int, rank: int, world_size: int) -> torch.Tensor:
    """Returns the positions that one rank evaluates: over all ranks each exactly once, so that lengths may differ."""
    return torch.tensor_split(torch.arange(count), world_size)[rank]


def random_split(count: int, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Splits indices at random.

    Returns:
        Those that stay and those held out, `round(count * fraction)` of them, at least one. Both are sorted.
    """
    held = max(1, round(count * fraction))
    order = torch.randperm(count, generator=stream('split', seed))
    return order[held:].sort().values, order[:held].sort().values


def random_subset(indices: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """Returns `size` of `indices`, sorted; a larger subset with the same seed contains every smaller one."""
    chosen = torch.randperm(len(indices), generator=stream('subset', seed))[:size]
    return indices[chosen.sort().values]


@contextmanager
def seeded(seed: int, device: Optional[torch.device] = None) -> Iterator[None]:
    """Seeds Python's, NumPy's and torch's global generators inside, and restores them afterwards.

    Args:
        seed: The seed.
        device: If it is a CUDA device, its generator, too.
    """
    # save
    cuda = device if device is not None and device.type == 'cuda' else None
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    if cuda is not None:
        cuda_state = torch.cuda.get_rng_state(cuda)

    # seed
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if cuda is not None:
        with torch.cuda.device(cuda):
            torch.cuda.manual_seed(seed)

    # restore
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda_state, cuda)
