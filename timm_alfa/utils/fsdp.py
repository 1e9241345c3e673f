"""FSDP2's parameters: kept gathered while a step searches; put together, and cut again, for files."""

from contextlib import contextmanager
from typing import Any, Iterable, Iterator

import torch
import torch.nn as nn


@contextmanager
def keep_unsharded(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While inside, these modules' own parameters are not sharded again after a backward pass.

    A search runs backward passes inside of the forward pass of the module around it, whose parameters are still needed
    afterwards. Modules that are not sharded and the groups of submodules are left alone. On leaving, parameters are
    sharded again after each backward pass, which is FSDP2's default.
    """
    sharded = [module for module in dict.fromkeys(modules) if hasattr(module, 'set_reshard_after_backward')]
    try:
        for module in sharded:
            module.set_reshard_after_backward(False, recurse=False)
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_backward(True, recurse=False)


def is_sharded(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether any of these parameters is FSDP2's, and not gathered."""
    return any(hasattr(p, 'placements') for p in parameters)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together, detached; any other is returned detached.

    All processes call it for the same tensor, at the same point.
    """
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, 'full_tensor') else tensor


def to_local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor; any other tensor itself."""
    return tensor.to_local() if hasattr(tensor, 'to_local') else tensor


def distribute_like(tensor: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """This process's piece of a whole tensor, as `pattern` is sharded; the tensor itself if that is whole too.

    All processes call it at the same point; the values of the first one count.
    """
    if not hasattr(pattern, 'full_tensor'):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)


def full_state(value: Any, keep: bool = True) -> Any:
    """The same with every tensor whole and on the CPU, through dicts.

    Args:
        keep: Whether this process wants them; else None stands in their place. Every process calls it.
    """
    if isinstance(value, dict):
        return {key: full_state(item, keep) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        value = full_tensor(value)
        return value.cpu() if keep else None
    return value


def distribute_state(state: dict[str, Any], optimizer) -> dict[str, Any]:
    """An optimizer's whole state, cut: what has a parameter's shape is sharded as that parameter is."""
    params = [param for group in optimizer.param_groups for param in group['params']]

    def cut(value: Any, param: torch.Tensor) -> Any:
        return distribute_like(value, param) if getattr(value, 'shape', None) == param.shape else value

    return {
        **state,
        'state': {
            at: {name: cut(value, params[at]) for name, value in values.items()}
            for at, values in state['state'].items()
        },
    }
