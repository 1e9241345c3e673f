"""How large a perturbation is: what a size of 1 means for each tensor of a feature. Functions of tensors."""

from typing import Any, Union

import torch

from timm_alfa.perturb.precision import at_least_float32
from timm_alfa.utils import pytree

Size = Union[float, torch.Tensor]  # a scalar; a tensor if only the device knows it


def root_mean_square(x: torch.Tensor) -> torch.Tensor:
    """The root of the mean of all squared entries, a scalar in single precision or better."""
    return at_least_float32(x.detach()).square().mean().sqrt()


def unit_lengths(feature: Any, unit: str, norm: str = 'linf') -> list[Size]:
    """The length that a step size of 1 has, for each floating-point tensor of a feature.

    Args:
        feature: A tensor [B, ...], or a tuple, list or dict of such tensors.
        unit: 'absolute': 1. 'rms': the root mean square of the tensor, over this process's whole batch; steps of equal
            size are then equally large relative to the feature, whichever norm they are measured in.
        norm: 'linf', or 'l2': the length is that of a sample whose every entry is as large as the root mean square.
    """
    tensors = pytree.floats(feature)
    if unit == 'absolute':
        return [1.0] * len(tensors)
    factors = [x.shape[1:].numel() ** 0.5 if norm == 'l2' else 1.0 for x in tensors]
    return [root_mean_square(x) * factor for x, factor in zip(tensors, factors, strict=True)]
