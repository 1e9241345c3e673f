"""Sending the calls of modules elsewhere for a while, and nothing left on them afterwards.

The slot is the one that `nn.Module.compile()` fills, `Module._compiled_call_impl`: `__call__` looks at it before
anything else. So hooks of a redirected module do not fire, a module that was compiled by itself goes on using its
compiled code, and putting things back is putting back an attribute.
"""
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator, Mapping

import torch.nn as nn

_SLOT = '_compiled_call_impl'
_EMPTY = object()


@contextmanager
def redirected(targets: Mapping[nn.Module, Callable[[Callable], Callable]]) -> Iterator[None]:
    """While inside, a call of a module goes to what its function makes of the original call.

    Contexts nest: the original of the inner one is what the outer one put there.
    """
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
