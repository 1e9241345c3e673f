"""What comes before a feature, as one function of the model's input: compiled, it is one graph.

Parts that are compiled one by one cannot be fused across their seams, and each seam has the memory layout of eager
code: on a CPU a ResNet compiled in stages took 1.4 times as long as one compiled whole.
"""

from typing import Any, Callable, Optional

import torch
import torch.nn as nn

from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.replay.redirect import redirected, replaced
from timm_alfa.utils import pytree, rng


class Prefix:
    """Runs a model up to the output of one of its modules.

    Args:
        model: Called as `model.forward`: hooks of the whole model do not fire.
        module: Somewhere inside the model.
        name: Of the feature that this module returns.
        compiler: Compiles a function, as `torch.compile` does.
    """

    def __init__(self, model: nn.Module, module: nn.Module, name: str, compiler: Callable):
        self.model, self.module, self.name = model, module, name
        self.compiled = compiler(_until_exit)
        self._exit = _Exit(module)

    def __call__(self, *args, **kwargs) -> Any:
        """The module's output; None if the pass ends without it."""
        with replaced(self.model, {self.module: self._exit}):
            return self.compiled(self.model, *args, **kwargs)


class PrefixCache:
    """The feature of one pass, computed before the model is called; the feature's module then returns it."""

    def __init__(self, prefix: Prefix):
        self.prefix, self.value = prefix, None

    def fill(self, original: Callable) -> Callable:
        """Redirects the model's call: computes the feature first."""

        def call(*args, **kwargs):
            self.value = self.prefix(*args, **kwargs)
            return original(*args, **kwargs)

        return call

    def read(self, original: Callable) -> Callable:
        """Redirects the call of the feature's module: returns the feature."""
        return lambda *args, **kwargs: self.value


def leads_to_feature(prefix: Prefix, call: Callable, record: ForwardRecord, states: Optional[rng.States]) -> bool:
    """Whether a prefix computes the first feature of a record.

    Args:
        prefix: Is tried out.
        call: As for `Replay`.
        record: Of a pass of the same model.
        states: Where the random generators were when that pass began.
    """
    cache = PrefixCache(prefix)
    try:
        with torch.no_grad(), record.norms.frozen(), rng.preserve_rng(pytree.device_of(record.output)):
            rng.restore(states or {})
            with redirected({prefix.model: cache.fill}):
                call(prefix.model, *record.batch)
            return pytree.close(cache.value, record.captured[record.first()].value)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a model may raise anything in a pass that ends early: compiled parts are safe
        return False


def is_hooked(model: nn.Module) -> bool:
    """Whether hooks might see, or start, a pass that a prefix runs out of order."""
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


def _until_exit(model: nn.Module, *args, **kwargs) -> Any:
    try:
        model.forward(*args, **kwargs)
    except _Reached as reached:
        return reached.args[0]
    return None
