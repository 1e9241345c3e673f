"""Adding perturbations to features."""

from functools import partial
from typing import Any, Callable, Sequence

import torch

from timm_alfa.utils import pytree

Delta = Sequence[torch.Tensor]  # of one feature: one tensor for each of its floating-point tensors


def perturb_feature(delta: Delta, feature: Any) -> Any:
    """f + delta, for every floating-point tensor of a feature."""
    return pytree.with_floats(feature, [_add(f, d) for f, d in zip(pytree.floats(feature), delta, strict=True)])


def perturbations(group: Sequence[int], deltas: Sequence[Delta]) -> dict[int, Callable[[Any], Any]]:
    """The changes that add perturbations to the features of a group, by index of the feature."""
    return {index: partial(perturb_feature, delta) for index, delta in zip(group, deltas, strict=True)}


def _add(feature: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Feature plus delta, in the feature's precision; under autocast in delta's, which the next operation casts."""
    perturbed = feature + delta
    return perturbed if torch.is_autocast_enabled(feature.device.type) else perturbed.to(feature.dtype)
