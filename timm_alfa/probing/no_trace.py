"""Passes of a model in training mode that leave it, and the random generators, as they were."""

import random
from contextlib import ExitStack, contextmanager
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from timm_alfa.replay.norms import freeze_running_stats
from timm_alfa.utils import pytree, rng


@contextmanager
def no_trace(model: nn.Module, others: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """While inside, the model is in training mode and gradients are on; on leaving, all is as it was.

    That holds for buffers (running statistics and any others), for the mode of each module, for the random generators
    of torch, Python and NumPy, and for the weights that autocast keeps. A model in training mode keeps the modes of its
    modules, some of which may be frozen.

    Args:
        others: Further modules that are called, such as a criterion.
        device: Of the batch.
    """
    modules = [child for module in (model, *others) for child in module.modules()]
    modes = [(module, module.training) for module in modules]
    buffers = [(module, dict(module._buffers)) for module in modules]
    copies = [[None if b is None else (b, b.clone()) for b in own.values()] for _, own in buffers]
    before = [pytree.versions(list(own.values())) for _, own in buffers]
    host = random.getstate(), np.random.get_state()

    with ExitStack() as stack:
        stack.enter_context(rng.preserve_rng(device))
        stack.callback(random.setstate, host[0])
        stack.callback(np.random.set_state, host[1])
        stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        stack.callback(_restore, modes, buffers, before, copies)
        torch.set_autocast_cache_enabled(False)
        if not model.training:
            model.train()
        stack.enter_context(freeze_running_stats(model))
        stack.enter_context(torch.enable_grad())
        yield


@torch.no_grad()
def _restore(modes: list, buffers: list, before: list, copies: list) -> None:
    for module, mode in modes:
        module.training = mode
    for (module, own), versions, pairs in zip(buffers, before, copies, strict=True):
        module._buffers.update(own)
        if pytree.versions(list(own.values())) == versions:
            continue
        for buffer, copy in filter(None, pairs):
            buffer.copy_(copy)
