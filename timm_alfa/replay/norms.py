"""Which pass moves running statistics, and which normalisation layers it goes through.

A search step and an adversarial pass normalise with the statistics of their batch, as training does. They must not
move the running statistics that the network is evaluated with.
"""

from contextlib import contextmanager
from copy import deepcopy
from typing import Callable, Container, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_alfa.replay.redirect import is_checkpointed, redirected, replaced


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose training pass moves running statistics, by name."""
    return {name: module for name, module in model.named_modules() if _has_statistics(module)}


def _has_statistics(module: nn.Module) -> bool:
    return any(name.startswith('running_') and buffer is not None for name, buffer in module._buffers.items())


def why_no_aux(model: nn.Module) -> str:
    """Why norms of its own would make no difference to a pass of this model; empty where they would."""
    layers = batch_norms(model).values()
    if all(type(layer).__name__.startswith('Frozen') for layer in layers):
        kind = 'only frozen batch norm' if layers else 'no layers with running statistics'
        return f'{type(model).__name__} has {kind}'
    return ''


@contextmanager
def freeze_running_stats(model: nn.Module) -> Iterator[None]:
    """While inside, no running statistic of the model moves; layers still normalise with batch statistics.

    Batch norms are told not to track. That touches no tensor, so it is safe between a forward pass and its backward
    pass. Other layers with running buffers (EvoNorm, ...) write into copies. If activations are checkpointed, batch
    norms do so too: a checkpoint counts the saved tensors, and a batch norm that tracks saves two more.
    """
    modules = [module for module in model.modules() if module.training and _has_statistics(module)]
    copying = is_checkpointed(model)
    tracking = [m for m in modules if isinstance(m, _BatchNorm) and m.track_running_stats and not copying]
    copied = [(m, dict(m._buffers)) for m in modules if copying or not isinstance(m, _BatchNorm)]
    try:
        for module in tracking:
            module.track_running_stats = False
        for module, buffers in copied:
            module._buffers.update({k: b.clone() for k, b in buffers.items() if b is not None})
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
        for module, buffers in copied:
            module._buffers.update(buffers)


def make_aux_norms(model: nn.Module) -> nn.ModuleDict:
    """Copies of all layers with running statistics, for passes with statistics and affine weights of their own.

    Keys are the layers' names with '/' in place of '.', which the names of submodules must not contain.
    """
    return nn.ModuleDict({name.replace('.', '/'): deepcopy(module) for name, module in batch_norms(model).items()})


@contextmanager
def swap_norms(model: nn.Module, others: nn.ModuleDict, watched: Container[nn.Module] = ()) -> Iterator[None]:
    """While inside, calls of the model's layers go to their auxiliary copies.

    The copies take the layers' places in the module tree, where compiled code sees them. Calls that reach a layer in
    another way are redirected.

    Args:
        model: Its layers with running statistics are replaced.
        others: The copies, as `make_aux_norms` makes them.
        watched: Layers that keep their place and are only redirected, because a replay answers for them.
    """
    layers = batch_norms(model)
    copies = {layers[key.replace('/', '.')]: other for key, other in others.items()}
    with (
        redirected({module: _instead(other) for module, other in copies.items()}, root=model),
        replaced(model, copies, kept=watched),
    ):
        yield


def _instead(other: nn.Module) -> Callable:
    return lambda _: other


def running_buffers(*modules: nn.Module) -> list[torch.Tensor]:
    """The running statistics of all norms that the modules hold."""
    return [
        buffer for module in modules for norm in batch_norms(module).values() for buffer in norm.buffers(recurse=False)
    ]


class RunningStatistics:
    """A copy of all norms' running statistics, to undo what a skipped update left in them.

    Args:
        modules: Hold the norms.
    """

    def __init__(self, *modules: nn.Module):
        self.buffers = running_buffers(*modules)
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def remember(self) -> None:
        if self.buffers:
            torch._foreach_copy_(self.copies, self.buffers)

    @torch.no_grad()
    def restore(self) -> None:
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.copies)
