"""FSDP2's parameters: kept unsharded while a step searches; gathered, and distributed again, for files."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterable, Iterator, cast

import torch
import torch.nn as nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


@contextmanager
def keep_unsharded(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While inside, these modules' own parameters are not sharded again after a backward pass.

    A search runs backward passes inside the forward pass of the module around it, whose parameters are still needed
    afterwards. Modules that are not sharded and the groups of submodules are left alone. On leaving, parameters are
    sharded again after each backward pass, which is FSDP2's default.
    """
    found = [module for module in dict.fromkeys(modules) if hasattr(module, 'set_reshard_after_backward')]
    sharded = cast('list[FSDPModule]', found)
    try:
        for module in sharded:
            module.set_reshard_after_backward(False, recurse=False)
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_backward(True, recurse=False)


def uses_fsdp(module: nn.Module) -> bool:
    """Whether FSDP2 shards this module or any inside it."""
    return any(hasattr(child, 'set_reshard_after_backward') for child in module.modules())


def is_sharded(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether any of these parameters is sharded by FSDP2, and not gathered at the moment."""
    return any(hasattr(p, 'placements') for p in parameters)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a sharded one, detached; any other tensor is returned detached.

    All processes call it for the same tensor, at the same point.
    """
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, 'full_tensor') else tensor


def to_local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a sharded tensor; any other tensor is returned as it is."""
    return tensor.to_local() if hasattr(tensor, 'to_local') else tensor


def distribute_like(tensor: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """A full tensor, sharded as `pattern` is; the tensor itself if that is not sharded.

    All processes call it at the same point; the values of the first one count.
    """
    if not (hasattr(pattern, 'device_mesh') and hasattr(pattern, 'placements')):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)


def full_state(value: Any, keep: bool = True) -> Any:
    """A nested dict with every tensor gathered and moved to the CPU. Every process calls it.

    Args:
        value: A dict, a tensor or anything else, which is returned as it is.
        keep: Whether this process keeps the tensors; otherwise there is None in their places.
    """
    if isinstance(value, dict):
        return {key: full_state(item, keep) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        value = full_tensor(value)
        return value.cpu() if keep else None
    return value


def distribute_state(state: dict[str, Any], optimizer) -> dict[str, Any]:
    """The full state of an optimizer, sharded: each tensor of a parameter's shape as that parameter is."""
    params = [param for group in optimizer.param_groups for param in group['params']]
    sharded = {index: _distribute_entries(entries, params[index]) for index, entries in state['state'].items()}
    return {**state, 'state': sharded}


def _distribute_entries(entries: dict[str, Any], param: torch.Tensor) -> dict[str, Any]:
    found = dict(entries)
    for name, value in entries.items():
        if getattr(value, 'shape', None) == param.shape:
            found[name] = distribute_like(value, param)
    return found
