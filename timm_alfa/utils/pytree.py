"""Operations on all tensors of a value.

A value, such as a feature or what a model returns, is a tensor or a tuple, list or dict of tensors, nested at will. An
object that holds some among its attributes, such as a dataclass, counts as a dict of its attributes.
"""

import copy
from types import FunctionType, MethodType, ModuleType
from typing import Any, Callable, Container, Iterator, Optional, Sequence

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

_SMALL = 2**16  # elements
_NO_CONTAINERS = (str, int, float, type, nn.Module, FunctionType, MethodType, ModuleType)


def _leaves(value: Any, around: frozenset[int] = frozenset()) -> Iterator[torch.Tensor]:
    """All tensors, in order.

    Args:
        around: Identities of the objects that the value is an attribute of.
    """
    for x in tree_leaves(value):
        if isinstance(x, torch.Tensor):
            yield x
        elif (attributes := _attributes(x, around)) is not None:
            yield from _leaves(attributes, around | {id(x)})


def _attributes(x: Any, around: Container[int]) -> Optional[dict]:
    """The attributes of an object that may hold tensors; None for anything else."""
    if x is None or isinstance(x, _NO_CONTAINERS) or id(x) in around:
        return None
    return getattr(x, '__dict__', None)


def _map(function: Callable[[torch.Tensor], torch.Tensor], value: Any, copies: Optional[dict[int, Any]] = None) -> Any:
    """The value with the function applied to all its tensors.

    Args:
        copies: Of the objects that the value is an attribute of, by their identities: they may refer to themselves.
    """
    copies = copies or {}

    def mapped(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return function(x)
        if id(x) in copies:
            return copies[id(x)]
        attributes = _attributes(x, copies)
        if attributes is None or next(_leaves(attributes, frozenset((*copies, id(x)))), None) is None:
            return x
        other = copy.copy(x)
        other.__dict__.update(_map(function, dict(attributes), {**copies, id(x): other}))
        return other

    return tree_map(mapped, value)


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors of a feature, in order."""
    return list(_leaves(value))


def floats(value: Any) -> list[torch.Tensor]:
    """The floating-point tensors of a feature: what can be perturbed."""
    return [x for x in _leaves(value) if x.is_floating_point()]


def with_floats(value: Any, replacements: Sequence[torch.Tensor]) -> Any:
    """The feature with its floating-point tensors replaced, in the order of `floats`."""
    rest = iter(replacements)
    return map_floats(lambda _: next(rest), value)


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The feature with the function applied to all its tensors."""
    return _map(function, value)


def map_floats(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The feature with the function applied to its floating-point tensors."""
    return _map(lambda x: function(x) if x.is_floating_point() else x, value)


def detached(value: Any) -> Any:
    """The feature without its graph, in the same memory."""
    return map_tensors(torch.Tensor.detach, value)


def cloned(value: Any) -> Any:
    """A copy of the feature, in the same graph."""
    return map_tensors(torch.Tensor.clone, value)


def placeholder(value: Any, shared: bool = False, keep_data: bool = False) -> Any:
    """A value of the same shapes that takes no memory. It is filled with NaN, so that any use of it shows.

    Args:
        value: Its floating-point tensors are replaced.
        shared: Take one NaN per dtype and device for all placeholders, which saves a kernel each. Writing into one of
            them, as `fill_` may do, then changes the others that exist.
        keep_data: Keep small tensors without gradients, such as boxes. Whether they matter can differ from batch to
            batch.
    """
    nan = _shared_nan if shared else _nan
    return map_floats(lambda x: x if keep_data and _is_data(x) else nan(x), value)


def _is_data(x: torch.Tensor) -> bool:
    return not x.requires_grad and x.numel() <= _SMALL


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
    return [0 if x.is_inference() else x._version for x in tensors(value)]


def close(value: Any, other: Any) -> bool:
    """Whether two values have the same floating-point tensors, up to rounding; NaN is close to nothing."""
    return all(_is_close(a, b) for a, b in zip(floats(value), floats(other), strict=True))


def _is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or b.numel() == 0:
        return a.shape == b.shape
    tolerance = torch.finfo(b.dtype).eps ** 0.5
    return bool((a - b).abs().amax() <= tolerance * b.abs().amax())


def is_nan(value: Any) -> bool:
    """Whether no floating-point tensor of a value holds a number."""
    return all(bool(x.isnan().all()) for x in floats(value))


def is_finite(value: Any) -> bool:
    """Whether all floating-point tensors of a value are finite."""
    return all(bool(x.isfinite().all()) for x in floats(value))


def device_of(value: Any) -> torch.device:
    """The device of the first tensor, or the CPU if there is none."""
    return next((x.device for x in tensors(value)), torch.device('cpu'))
