"""Keeps FSDP2's parameters gathered while a step searches."""
from contextlib import contextmanager
from typing import Iterable, Iterator

import torch
import torch.nn as nn


@contextmanager
def gathered(modules: Iterable[nn.Module]) -> Iterator[None]:
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
