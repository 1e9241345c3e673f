"""Counting floating-point operations: what a step costs, and what it has to cost, whatever the machine.

For tests and benchmarks/; nothing that trains uses it.
"""

from typing import Any, Callable, Sequence

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from timm_alfa.replay import norms
from timm_alfa.replay.redirect import redirected


def _convolution_backward(grad_output, input, weight, *rest, out_val=None) -> int:
    """Each gradient costs what the forward pass does; torch's own formula takes grouped convolutions for dense ones."""
    *_, transposed, _, _, output_mask = rest
    positions = input if transposed else grad_output
    return 2 * positions.numel() * weight[0].numel() * sum(output_mask[:2])


_FORMULAS = {**flop_registry, torch.ops.aten.convolution_backward: _convolution_backward}


class FlopCounter(TorchDispatchMode):
    """`FlopCounterMode` tracks modules, and fails under `autograd.grad` to a leaf; its formulas are enough."""

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


def forward_after(model: nn.Module, names: Sequence[str], input: Any) -> tuple[int, dict[str, int]]:
    """Forward operations F of a model, and T_i of what comes after each of some modules, by name."""
    modules, done = dict(model.named_modules()), {}

    def marks(name: str) -> Callable:
        def redirect(original: Callable) -> Callable:
            def call(*args, **kwargs):
                output = original(*args, **kwargs)
                done[name] = counter.total
                return output

            return call

        return redirect

    marked = {modules[name]: marks(name) for name in names}
    with torch.no_grad(), norms.freeze_running_stats(model), FlopCounter() as counter, redirected(marked):
        model(input)
    return counter.total, {name: counter.total - at for name, at in done.items()}


def floor(model: nn.Module, groups: Sequence[Sequence[str]], input: Any, steps: int) -> int:
    """The least that an exact ALFA step can cost: 3F + max_i T_i + sum_i (2K + 1) T_i.

    Args:
        groups: Names of the features that are perturbed together: one each in 'separate' mode, all in 'joint' mode.
        input: A batch.
        steps: K, at least 1; the clean gradient is the first step of each search.
    """
    whole, after = forward_after(model, [name for group in groups for name in group], input)
    tails = [max(after[name] for name in group) for group in groups]
    return 3 * whole + max(tails) + (2 * steps + 1) * sum(tails)
