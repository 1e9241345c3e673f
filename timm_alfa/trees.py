"""Features are tensors, or tuples, lists and dicts of them: what we do with one we do with all its tensors."""
from typing import Any, Callable, Sequence

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


def is_float(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def tensors(value: Any) -> list[torch.Tensor]:
    return [x for x in tree_flatten(value)[0] if isinstance(x, torch.Tensor)]


def floats(value: Any) -> list[torch.Tensor]:
    """The floating-point tensors of a feature: what can be perturbed."""
    return [x for x in tensors(value) if x.is_floating_point()]


def with_floats(value: Any, replacements: Sequence[torch.Tensor]) -> Any:
    """The feature with other tensors in place of its floating-point ones, in the order of `floats`."""
    leaves, spec = tree_flatten(value)
    rest = iter(replacements)
    return tree_unflatten([next(rest) if is_float(x) else x for x in leaves], spec)


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    return tree_map(lambda x: function(x) if isinstance(x, torch.Tensor) else x, value)


def map_floats(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    return tree_map(lambda x: function(x) if is_float(x) else x, value)


def detached(value: Any) -> Any:
    return map_tensors(torch.Tensor.detach, value)


def cloned(value: Any) -> Any:
    return map_tensors(torch.Tensor.clone, value)


def placeholder(value: Any) -> Any:
    """The shapes of a value without its memory: NaN, so that nothing can lean on it unnoticed."""
    return map_floats(lambda x: x.new_full((), float('nan')).expand(x.shape), value)


def versions(value: Any) -> list[int]:
    """Counters that tell whether a tensor was written into."""
    return [x._version for x in tensors(value)]


def all_finite(value: Any) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in floats(value))


def device_of(value: Any) -> torch.device:
    return next((x.device for x in tensors(value)), torch.device('cpu'))
