"""What comes before a feature, as one function of the model's input: compiled, it is one graph.

Parts that are compiled one by one cannot be fused across their seams, and each seam has the memory layout of eager
code: on a CPU a ResNet compiled in stages took 1.4 times as long as one compiled whole.
"""

from typing import Any, Callable

import torch.nn as nn

from timm_alfa.replay.redirect import replaced


class Front:
    """Runs a model up to the output of one of its modules.

    Args:
        model: Called as `model.forward`: hooks of the whole model do not fire.
        module: Somewhere inside of it.
        name: Of the feature that this module gives.
        compiler: Compiles a function, as `torch.compile` does.
    """

    def __init__(self, model: nn.Module, module: nn.Module, name: str, compiler: Callable):
        self.model, self.module, self.name = model, module, name
        self.compiled = compiler(_until_exit)
        self._exit = _Exit(module)

    def __call__(self, input: Any) -> Any:
        """The module's output; None if the pass ends without it."""
        with replaced(self.model, {self.module: self._exit}):
            return self.compiled(self.model, input)


class Ahead:
    """Computes a feature before the model is called, whose module then answers with it."""

    def __init__(self, front: Front):
        self.front, self.value = front, None

    def whole(self, original: Callable) -> Callable:
        """Redirects the model's call."""

        def call(input):
            self.value = self.front(input)
            return original(input)

        return call

    def feature(self, original: Callable) -> Callable:
        """Redirects the call of the feature's module."""
        return lambda *args, **kwargs: self.value


def is_hooked(model: nn.Module) -> bool:
    """Whether hooks might see, or start, a pass that a front takes out of order."""
    kinds = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    return any(getattr(module, kind) for module in model.modules() for kind in kinds)


class _Reached(Exception):
    """Carries a feature out of the model's forward pass."""


class _Exit(nn.Module):
    """Takes a module's place in the tree; compiled code guards on its type, as it would not on a hook."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        raise _Reached(self.module(*args, **kwargs))


def _until_exit(model: nn.Module, input: Any) -> Any:
    try:
        model.forward(input)
    except _Reached as reached:
        return reached.args[0]
    return None
