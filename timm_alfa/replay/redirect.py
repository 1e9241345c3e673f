"""Redirects the calls of modules for a while and leaves nothing on them afterwards.

It uses the attribute that `nn.Module.compile()` sets, `Module._compiled_call_impl`, which `__call__` looks at before
anything else. So a module's hooks fire only if its original call is made, a module that was compiled by itself keeps
using its compiled code, and undoing it means to put one attribute back.
"""

from contextlib import contextmanager
from typing import Callable, Container, Iterable, Iterator, Mapping, Optional

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
            that is started inside of the first one (by a hook, say) is left alone. What replaces the call of the
            root itself is outside of it.
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

    around = targets.get(root, lambda original: original)
    return {
        **{module: outermost(make) for module, make in targets.items()},
        root: lambda original: around(counted(original)),
    }


@contextmanager
def replaced(
    model: nn.Module,
    others: Mapping[nn.Module, nn.Module],
    kept: Container[nn.Module] = (),
) -> Iterator[None]:
    """While inside, modules of a model have others in their places in the module tree, where compiled code sees them.

    Args:
        model: Its submodules are replaced.
        others: What takes a module's places.
        kept: Modules that keep their places all the same.
    """
    places = [
        (parent._modules, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child in others and child not in kept
    ]
    try:
        for children, name, child in places:
            children[name] = others[child]
        yield
    finally:
        for children, name, child in places:
            children[name] = child


def is_checkpointed(model: nn.Module) -> bool:
    """Whether any module of a model checkpoints its activations."""
    return any(getattr(module, 'grad_checkpointing', False) is True for module in model.modules())


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
