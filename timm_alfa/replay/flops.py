"""Counts floating-point operations: what a step costs, and the least that it can cost, on any machine."""

from functools import partial
from typing import Any, Callable, Sequence

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from timm_alfa.replay import norms
from timm_alfa.replay.redirect import redirected
from timm_alfa.replay.replay import call_model


def _convolution_backward(grad_output, input, weight, *rest, out_val=None) -> int:
    """Each gradient costs what the forward pass does; torch's own formula counts grouped convolutions as dense."""
    *_, transposed, _, _, output_mask = rest
    positions = input if transposed else grad_output
    return 2 * positions.numel() * weight[0].numel() * sum(output_mask[:2])


_FORMULAS = {**flop_registry, torch.ops.aten.convolution_backward: _convolution_backward}


class FlopCounter(TorchDispatchMode):
    """Counts operations with the formulas of `FlopCounterMode`, which itself fails under `autograd.grad` to a leaf."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in _FORMULAS:
            self.total += _FORMULAS[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(function: Callable[[], Any]) -> int:
    """Floating-point operations that a function spends on matrix products, convolutions and attention.

    A multiplication and the addition that follows it count as two.
    """
    with FlopCounter() as counter:
        function()
    return counter.total


def forward_after(
    model: nn.Module, names: Sequence[str], *batch: Any, call: Callable = call_model
) -> tuple[int, dict[str, int]]:
    """Forward operations F of a model, and T_i of what comes after each of some modules, by name.

    Args:
        batch: What the model is called on.
        call: `call(model, *batch)` calls it.
    """
    counter = FlopCounter()
    before: dict[str, int] = {}

    def note(name: str, original: Callable) -> Callable:
        def call(*args, **kwargs):
            output = original(*args, **kwargs)
            before[name] = counter.total
            return output

        return call

    targets = {model.get_submodule(name): partial(note, name) for name in names}
    with torch.no_grad(), norms.freeze_running_stats(model), counter, redirected(targets):
        call(model, *batch)
    return counter.total, {name: counter.total - count for name, count in before.items()}


def floor(
    model: nn.Module, groups: Sequence[Sequence[str]], *batch: Any, steps: int, call: Callable = call_model
) -> int:
    """The least that an exact ALFA step can cost: 3F + max_i T_i + sum_i (2K + 1) T_i.

    Args:
        groups: Names of the features that are perturbed together: each on its own in 'separate' mode, all in 'joint'.
        batch: What the model is called on.
        steps: K, at least 1; the clean gradient is the first step of each search.
        call: `call(model, *batch)` calls it.
    """
    names = [name for group in groups for name in group]
    forward, after = forward_after(model, names, *batch, call=call)
    tails = [max(after[name] for name in group) for group in groups]
    return step_cost(forward, tails, 2 * (steps - 1), clean_gradients=True)


def step_cost(forward: int, tails: Sequence[int], passes: int, clean_gradients: bool) -> int:
    """The cost of a step: both passes of the clean loss, those of a perturbed loss for each tail, and its search.

    Args:
        forward: F, of the model.
        tails: T_i, of what follows each group of features.
        passes: Through a tail, forward or backward, in each search.
        clean_gradients: Whether the gradients of the clean loss at all features are computed, too.
    """
    longest = max(tails, default=0) if clean_gradients else 0
    return 3 * forward + longest + (passes + 3) * sum(tails)


def relative_cost(forward: int, tails: Sequence[int], passes: int, clean_gradients: bool) -> float:
    """The cost of a step relative to standard training; arguments as for `step_cost`."""
    return step_cost(forward, tails, passes, clean_gradients) / (3 * forward)
