"""Counting floating-point operations: what a step costs, whatever the machine."""
from typing import Any, Callable

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """`FlopCounterMode` tracks modules, and fails under `autograd.grad` to a leaf; its registry is enough."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(function: Callable[[], Any]) -> int:
    """Floating-point operations that a function spends on matrix products, convolutions and attention.

    A multiplication and the addition that follows it count as two.
    """
    with FlopCounter() as counter:
        function()
    return counter.total
