"""Sending the calls of modules elsewhere for a while, and nothing left on them afterwards.

The slot is the one that `nn.Module.compile()` fills, `Module._compiled_call_impl`: `__call__` looks at it before
anything else. So hooks of a redirected module do not fire, a module that was compiled by itself goes on using its
compiled code, and putting things back is putting back an attribute.
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
    """While inside, a call of a module goes to what its function makes of the original call.

    Contexts nest: the original of the inner one is what the outer one put there.

    Args:
        targets: By module, what makes another call of the original one.
        root: Only calls that come from the outermost call of this module are sent elsewhere: a pass of the same model
            that is begun within goes as ever.
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
    """While inside, these modules do not checkpoint.

    A checkpoint runs its modules again in the backward pass, when nothing is redirected and running statistics move.
    """
    on = [module for module in modules if getattr(module, 'grad_checkpointing', False) is True]
    try:
        for module in on:
            module.grad_checkpointing = False
        yield
    finally:
        for module in on:
            module.grad_checkpointing = True
