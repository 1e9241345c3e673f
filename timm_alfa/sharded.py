"""FSDP2's shards, while a step searches."""
from contextlib import contextmanager
from typing import Iterable, Iterator

import torch.nn as nn


@contextmanager
def gathered(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While inside, the parameters of these modules' own groups stay whole after a backward pass.

    A search runs backward within the forward pass of what is around it, and its groups are needed once more. Modules
    that are not sharded, or whose groups are those of modules inside, are left alone.
    """
    sharded = [module for module in dict.fromkeys(modules) if hasattr(module, 'set_reshard_after_backward')]
    try:
        for module in sharded:
            module.set_reshard_after_backward(False, recurse=False)
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_backward(True, recurse=False)
