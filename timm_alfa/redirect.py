"""Redirects the calls of modules for a while and leaves nothing on them afterwards.

It uses the attribute that `nn.Module.compile()` sets, `Module._compiled_call_impl`, which `__call__` looks at before
anything else. So a module's hooks fire only if its original call is made, a module that was compiled by itself keeps
using its compiled code, and undoing it means to put one attribute back.
"""
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator, Mapping, Optional

import torch.nn as nn

_SLOT = '_compiled_call_impl'
_EMPTY = object()


@contextmanager
def redirected(
        targets: Mapping[nn.Module, Callable[[Callable], Callable]],
        root: Optional[nn.Module] = None,
) -> Iterator[None]:
    """While inside, calls of some modules are replaced.

    Contexts nest: the original call that the inner one sees is the replacement that the outer one made.

    Args:
        targets: By module, a function that takes the original call and returns the one that replaces it.
        root: If given, only calls within the outermost call of this module are replaced. A second pass of the model
            that is started inside of the first one (by a hook, say) is left alone.
    """
    if root is not None:
        targets = _of_outermost(targets, root)
    undo = []
    try:
        for module, make in targets.items():
            undo.append((module, module.__dict__.get(_SLOT, _EMPTY)))
            module.__dict__[_SLOT] = make(getattr(module, _SLOT) or module._call_impl)
        yield
    finally:
        for module, before in reversed(undo):
            if before is _EMPTY:
                module.__dict__.pop(_SLOT, None)
            else:
                module.__dict__[_SLOT] = before


def _of_outermost(targets: Mapping[nn.Module, Callable], root: nn.Module) -> dict[nn.Module, Callable]:
    running: list[nn.Module] = []

    def counted(original: Callable) -> Callable:
        def call(*args, **kwargs):
            running.append(root)
            try:
                return original(*args, **kwargs)
            finally:
                running.pop()
        return call

    def outermost(make: Callable) -> Callable:
        def redirect(original: Callable) -> Callable:
            changed = make(original)
            return lambda *args, **kwargs: (changed if len(running) == 1 else original)(*args, **kwargs)
        return redirect

    return {root: counted, **{module: outermost(make) for module, make in targets.items()}}


@contextmanager
def without_checkpointing(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While inside, these modules do not checkpoint their activations.

    A checkpoint runs its modules again in the backward pass. By then nothing is redirected any more, and running
    statistics would move.
    """
    on = [module for module in modules if getattr(module, 'grad_checkpointing', False) is True]
    try:
        for module in on:
            module.grad_checkpointing = False
        yield
    finally:
        for module in on:
            module.grad_checkpointing = True
