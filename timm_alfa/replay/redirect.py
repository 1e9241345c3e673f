"""Redirects calls of modules for a while, and leaves nothing on the modules afterwards.

It uses the attribute that `nn.Module.compile()` sets, `Module._compiled_call_impl`, which `__call__` looks at before
anything else. So a module's hooks fire only if its original call is made, a module that was compiled on its own keeps
using its compiled code, and undoing a redirection means putting one attribute back.
"""

from contextlib import contextmanager
from typing import Any, Callable, Container, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence

import torch.nn as nn

from timm_alfa.utils import rng

Redirect = Callable[[Callable], Callable]  # takes the original call of a module, returns the call that replaces it
Change = Callable[[Any], Any]  # takes a feature, returns the one to continue with

_SLOT = '_compiled_call_impl'
_EMPTY = object()


@contextmanager
def redirected(targets: Mapping[nn.Module, Redirect], root: Optional[nn.Module] = None) -> Iterator[None]:
    """While inside, calls of some modules are replaced.

    Contexts nest: the original call that the inner one sees is the replacement that the outer one made.

    Args:
        targets: What replaces the calls, by module.
        root: If given, only calls within the outermost call of this module are replaced. A second pass of the model
            that starts inside the first one (in a hook, for example) is left alone. What replaces the call of the
            root itself runs outside of it.
    """
    if root is not None:
        targets = _within_outermost_call(targets, root)
    undo = []
    try:
        for module, redirect in targets.items():
            undo.append((module, module.__dict__.get(_SLOT, _EMPTY)))
            module.__dict__[_SLOT] = redirect(getattr(module, _SLOT) or module._call_impl)
        yield
    finally:
        for module, before in reversed(undo):
            if before is _EMPTY:
                module.__dict__.pop(_SLOT, None)
            else:
                module.__dict__[_SLOT] = before


def _within_outermost_call(targets: Mapping[nn.Module, Redirect], root: nn.Module) -> dict[nn.Module, Redirect]:
    depth = _CallDepth()
    guarded = {module: depth.only_outermost(redirect) for module, redirect in targets.items()}
    guarded[root] = chain([depth.count, *([targets[root]] if root in targets else [])])
    return guarded


class _CallDepth:
    """How many calls of a module are running, one inside the other."""

    def __init__(self):
        self.running = 0

    def count(self, original: Callable) -> Callable:
        """Counts the calls that it redirects."""

        def call(*args, **kwargs):
            self.running += 1
            try:
                return original(*args, **kwargs)
            finally:
                self.running -= 1

        return call

    def only_outermost(self, redirect: Redirect) -> Redirect:
        """Replaces a call only while exactly one of the counted calls is running."""

        def guarded(original: Callable) -> Callable:
            replacement = redirect(original)

            def call(*args, **kwargs):
                chosen = replacement if self.running == 1 else original
                return chosen(*args, **kwargs)

            return call

        return guarded


def chain(redirects: Sequence[Redirect]) -> Redirect:
    """Several redirections as one, the last outermost."""

    def redirect(original: Callable) -> Callable:
        for each in redirects:
            original = each(original)
        return original

    return redirect


class Cached(NamedTuple):
    """What one call of a module returned, and the states of the random generators then, where they matter."""

    value: Any
    rng_states: Optional[rng.States] = None


def return_cached(cached: Sequence[Cached]) -> Redirect:
    """Returns one value after the other in place of calling the module; any further call is computed."""
    rest = iter(cached)

    def redirect(original: Callable) -> Callable:
        def call(*args, **kwargs):
            for value, states in rest:
                if states is not None:
                    rng.restore(states)
                return value
            return original(*args, **kwargs)

        return call

    return redirect


def return_with_rng(feature: Any, states: Optional[rng.States]) -> Redirect:
    """Returns a feature, and sets the random generators to where they were when it was recorded."""

    def call(*args, **kwargs):
        if states is not None:
            rng.restore(states)
        return feature

    return lambda original: call


def apply_once(change: Change) -> Redirect:
    """Changes what the outermost call returns.

    One object redirects a Sequential and its last child, which give the same output: it is changed once, whether the
    Sequential is called as a whole or child by child.
    """
    depth = _CallDepth()

    def redirect(original: Callable) -> Callable:
        counted = depth.count(original)

        def call(*args, **kwargs):
            value = counted(*args, **kwargs)
            return value if depth.running else change(value)

        return call

    return redirect


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
        kept: Modules that keep their places nevertheless.
    """
    places = [
        (parent._modules, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is not None and child in others and child not in kept
    ]
    try:
        for children, name, child in places:
            children[name] = others[child]
        yield
    finally:
        for children, name, child in places:
            children[name] = child


def is_checkpointed(modules: Iterable[nn.Module]) -> bool:
    """Whether any of these modules checkpoints its activations."""
    return any(getattr(module, 'grad_checkpointing', False) is True for module in modules)


@contextmanager
def without_checkpointing(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While inside, these modules do not checkpoint their activations.

    A checkpoint runs its modules again in the backward pass, when nothing is redirected any more and running
    statistics would move.
    """
    # Any: torch's annotations let a module's attributes be set to tensors and modules only
    on: list[Any] = [module for module in modules if is_checkpointed([module])]
    try:
        for module in on:
            module.grad_checkpointing = False
        yield
    finally:
        for module in on:
            module.grad_checkpointing = True
