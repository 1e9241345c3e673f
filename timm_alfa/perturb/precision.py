"""Searches run in single precision or better: a step can be smaller than a half-precision value resolves."""

from contextlib import AbstractContextManager, nullcontext

import torch

_HALF = (torch.float16, torch.bfloat16)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """A tensor in single precision or better."""
    return x.float() if x.dtype in _HALF else x


def search_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of a perturbation of this tensor."""
    return torch.float32 if x.dtype in _HALF else x.dtype


def without_autocast(device: torch.device) -> AbstractContextManager:
    """While inside, nothing on this device is cast; for any device, also those that autocast does not know."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
