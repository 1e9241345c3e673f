"""What comes before a feature, as one function of the model's input: compiled, it is one graph.

Parts that are compiled one by one cannot be fused across their seams, and each seam has the memory layout of eager
code. On a CPU a ResNet cut into stages is half as fast again as one that is compiled whole.
"""
from typing import Any, Callable

import torch.nn as nn

from timm_alfa.redirect import replaced


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
        self.eager, self.compiled = _until_exit, compiler(_until_exit)
        self._exit = _Exit(module)

    def __call__(self, input: Any, eager: bool = False) -> Any:
        """The module's output; None if the pass ends without it."""
        with replaced(self.model, {self.module: self._exit}):
            return (self.eager if eager else self.compiled)(self.model, input)


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
