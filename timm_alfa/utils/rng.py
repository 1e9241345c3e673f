"""Random numbers: seeds as a function of names, and the states of the generators that a model draws from."""

import hashlib
import random
from contextlib import contextmanager
from typing import Iterator, Optional

import numpy as np
import torch

States = dict[torch.device, torch.Tensor]
_CPU = torch.device('cpu')


def seed_of(text: str) -> int:
    """A seed (63 bits) made from a text; similar texts give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little') >> 1


def seed_all(*parts) -> None:
    """Seeds Python, NumPy and torch on every device.

    The loop calls it before each update with (seed, update, process), so that dropout, noise and random starts of an
    update do not depend on whether the run was interrupted before it.
    """
    seed = seed_of(':'.join(map(str, parts)))
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    _seed_torch(seed)


def seed_device(*parts) -> None:
    """Seeds the generators of a CUDA device as `seed_all` does, and no others."""
    torch.cuda.manual_seed(seed_of(':'.join(map(str, parts))))


def _seed_torch(seed: int) -> None:
    """Does what `torch.manual_seed` does, for the devices that exist.

    For each kind of device that does not, `torch.manual_seed` formats a stack trace to queue the seed with: over 100
    microseconds each, in every update.
    """
    torch.default_generator.manual_seed(seed)
    if not torch.accelerator.is_available():
        return
    module = torch.get_device_module()
    if hasattr(module, 'manual_seed_all'):
        module.manual_seed_all(seed)
    else:  # MPS has one device
        module.manual_seed(seed)


def states(device: torch.device) -> Optional[States]:
    """The current states of the generators of the CPU and of a device.

    None where they cannot be read, which is while a CUDA graph is captured.
    """
    if device.type == 'cuda' and torch.cuda.is_current_stream_capturing():
        return None
    found = {_CPU: torch.get_rng_state()}
    if device.type in ('cuda', 'xpu', 'mps'):
        found[device] = _of(device).get_rng_state(*_index(device))
    return found


def restore(saved: States) -> None:
    """Sets the generators back to saved states."""
    for device, state in saved.items():
        if device == _CPU:
            torch.set_rng_state(state)
        else:
            _of(device).set_rng_state(state, *_index(device))


def same(a: Optional[States], b: Optional[States]) -> bool:
    """Whether nothing random was drawn between two states; if one is unknown, the answer is yes."""
    return a is None or b is None or all(torch.equal(a[device], b[device]) for device in a)


@contextmanager
def preserve_rng(device: torch.device) -> Iterator[None]:
    """On leaving, the generators of the CPU and of this device are where they were on entering."""
    before = states(device)
    try:
        yield
    finally:
        if before is not None:
            restore(before)


def _of(device: torch.device):
    return torch.get_device_module(device)


def _index(device: torch.device) -> tuple:
    return (device,) if device.type in ('cuda', 'xpu') else ()
