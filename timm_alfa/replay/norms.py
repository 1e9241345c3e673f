"""Which pass moves running statistics, and which normalization layers it goes through.

A search step and an adversarial pass normalize with the statistics of their batch, as training does. They must not
move the running statistics that the network is evaluated with.
"""

from collections import defaultdict
from contextlib import contextmanager
from copy import deepcopy
from typing import Container, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_alfa.replay.redirect import is_checkpointed, redirected, replaced


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose training pass moves running statistics, by name."""
    return {name: module for name, module in model.named_modules() if _has_statistics(module)}


def _has_statistics(module: nn.Module) -> bool:
    return any(name.startswith('running_') and buffer is not None for name, buffer in module._buffers.items())


def _is_frozen(layer: nn.Module) -> bool:
    return type(layer).__name__.startswith('Frozen')


def why_no_aux(model: nn.Module) -> str:
    """Why auxiliary norms would make no difference to a pass of this model; empty where they would."""
    layers = batch_norms(model).values()
    if not layers:
        return f'{type(model).__name__} has no layers with running statistics'
    if all(map(_is_frozen, layers)):
        return f'{type(model).__name__} has only frozen batch norm'
    return ''


class RunningNorms:
    """The layers of some modules whose training pass moves running statistics, found in one walk.

    A step freezes them several times, and a walk of all modules takes as long as the kernels of a small layer.

    Args:
        modules: Hold the layers. Modules added to them later are not seen.
    """

    def __init__(self, *modules: nn.Module):
        found = [child for module in modules for child in module.modules()]
        self.layers = [child for child in found if _has_statistics(child) and not _is_frozen(child)]
        self.can_checkpoint = [child for child in found if hasattr(child, 'grad_checkpointing')]

    def joined_by(self, module: nn.Module) -> 'RunningNorms':
        """These layers and those of one more module."""
        joined, other = RunningNorms(), RunningNorms(module)
        joined.layers = self.layers + other.layers
        joined.can_checkpoint = self.can_checkpoint + other.can_checkpoint
        return joined

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While inside, no running statistic moves; layers in training mode still normalize with batch statistics.

        Batch norms are set not to track. That touches no tensor, so it is safe between a forward pass and its backward
        pass. Other layers with running buffers (EvoNorm, ...) write into copies. Where activations are checkpointed,
        batch norms do so too: a checkpoint counts the saved tensors, and a batch norm that tracks saves two more.
        """
        training = [layer for layer in self.layers if layer.training]
        if is_checkpointed(self.can_checkpoint):
            tracking, copying = [], training
        else:
            tracking = [layer for layer in training if isinstance(layer, _BatchNorm) and layer.track_running_stats]
            copying = [layer for layer in training if not isinstance(layer, _BatchNorm)]

        kept = [(layer, dict(layer._buffers)) for layer in copying]
        try:
            for norm in tracking:
                norm.track_running_stats = False
            for layer, buffers in kept:
                layer._buffers.update({key: buffer.clone() for key, buffer in buffers.items() if buffer is not None})
            yield
        finally:
            for norm in tracking:
                norm.track_running_stats = True
            for layer, buffers in kept:
                layer._buffers.update(buffers)


@contextmanager
def freeze_running_stats(model: nn.Module) -> Iterator[None]:
    """While inside, no running statistic of the model moves: see `RunningNorms.frozen`."""
    with RunningNorms(model).frozen():
        yield


def make_aux_norms(model: nn.Module) -> nn.ModuleDict:
    """Copies of all layers with running statistics, for passes with separate statistics and affine weights.

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
        watched: Layers that keep their place and are only redirected, because a replay returns a value for them.
    """
    layers = batch_norms(model)
    copies = {layers[key.replace('/', '.')]: other for key, other in others.items()}
    targets = {layer: _call_instead(other) for layer, other in copies.items()}
    with redirected(targets, root=model), replaced(model, copies, kept=watched):
        yield


def _call_instead(other: nn.Module):
    return lambda original: other


def running_buffers(*modules: nn.Module) -> list[torch.Tensor]:
    """The running statistics of all norms that the modules hold."""
    layers = [layer for module in modules for layer in batch_norms(module).values()]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]


class RunningStatistics:
    """A copy of all norms' running statistics, to undo what a skipped update left in them.

    Args:
        modules: Hold the norms.
    """

    def __init__(self, *modules: nn.Module):
        by_dtype = defaultdict(list)
        for buffer in running_buffers(*modules):
            by_dtype[buffer.dtype].append(buffer)
        self.buffers = list(by_dtype.values())  # one list per dtype: mixed ones are copied tensor by tensor on a GPU
        self.copies = [[buffer.clone() for buffer in buffers] for buffers in self.buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Copies the statistics as they are now."""
        for copies, buffers in zip(self.copies, self.buffers, strict=True):
            torch._foreach_copy_(copies, buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the statistics back to what was last copied."""
        for copies, buffers in zip(self.copies, self.buffers, strict=True):
            torch._foreach_copy_(buffers, copies)
