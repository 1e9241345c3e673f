"""Operations on all tensors of a feature, which is a tensor or a tuple, list or dict of tensors."""

from typing import Any, Callable, Sequence

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


def is_float(x: Any) -> bool:
    """Whether this is a floating-point tensor."""
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors of a feature, in order."""
    return [x for x in tree_flatten(value)[0] if isinstance(x, torch.Tensor)]


def floats(value: Any) -> list[torch.Tensor]:
    """The floating-point tensors of a feature: what can be perturbed."""
    return [x for x in tree_flatten(value)[0] if is_float(x)]


def with_floats(value: Any, replacements: Sequence[torch.Tensor]) -> Any:
    """The feature with its floating-point tensors replaced, in the order of `floats`."""
    leaves, spec = tree_flatten(value)
    rest = iter(replacements)
    return tree_unflatten([next(rest) if is_float(x) else x for x in leaves], spec)


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The feature with the function applied to all its tensors."""
    return tree_map(lambda x: function(x) if isinstance(x, torch.Tensor) else x, value)


def map_floats(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The feature with the function applied to its floating-point tensors."""
    return tree_map(lambda x: function(x) if is_float(x) else x, value)


def detached(value: Any) -> Any:
    """The feature without its graph, in the same memory."""
    return map_tensors(torch.Tensor.detach, value)


def cloned(value: Any) -> Any:
    """A copy of the feature, in the same graph."""
    return map_tensors(torch.Tensor.clone, value)


def placeholder(value: Any, shared: bool = False) -> Any:
    """A value of the same shapes that takes no memory. It is filled with NaN, so that any use of it shows.

    Args:
        value: Its floating-point tensors are replaced.
        shared: Take one NaN per dtype and device for all placeholders, which saves a kernel each. Writing into one of
            them, as `fill_` may do, then changes the others that exist.
    """
    return map_floats(_shared_nan if shared else _nan, value)


def _nan(x: torch.Tensor) -> torch.Tensor:
    return x.new_full((), float('nan')).expand(x.shape)


_NANS: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}


def _shared_nan(x: torch.Tensor) -> torch.Tensor:
    if type(x) is not torch.Tensor:
        return _nan(x)
    nan = _NANS.get((x.dtype, x.device))
    if nan is None or nan._version > 0:  # none yet, or somebody wrote into it
        with torch.inference_mode(False):  # whatever mode it is made in, a backward pass may save it
            nan = _NANS[x.dtype, x.device] = torch.full((), float('nan'), dtype=x.dtype, device=x.device)
    return nan.expand(x.shape)


def versions(value: Any) -> list[int]:
    """Counters that show whether a tensor was written into."""
    return [x._version for x in tensors(value)]


def close(value: Any, other: Any) -> bool:
    """Whether two values have the same floating-point tensors, up to rounding; NaN is close to nothing."""
    return all(_is_close(a, b) for a, b in zip(floats(value), floats(other), strict=True))


def _is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    tolerance = torch.finfo(b.dtype).eps ** 0.5
    return bool((a - b).abs().amax() <= tolerance * b.abs().amax())


def is_finite(value: Any) -> bool:
    """Whether all floating-point tensors of a value are finite."""
    return all(bool(x.isfinite().all()) for x in floats(value))


def device_of(value: Any) -> torch.device:
    """The device of the first tensor, or the CPU if there is none."""
    return next((x.device for x in tensors(value)), torch.device('cpu'))
