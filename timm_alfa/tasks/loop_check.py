"""Notices a training loop that leaves out what a task needs after each optimizer step."""

import weakref
from typing import Iterable, Optional

from torch import nn

from timm_alfa.errors import warn

_PATIENCE = 3  # updates in a row before a warning: weights may also be loaded or averaged between two calls


class LoopCheck:
    """Warns once about each of two mistakes that nothing else would show.

    That an optimizer has stepped is seen from torch's counters of writes into tensors: nothing is read from the device,
    and evaluation, accumulated gradients and skipped updates do not count as steps. Steps of fused optimizers do not
    move the counters and go unnoticed. A copy starts anew.

    Attributes:
        expects_post_step: Whether each update has to be counted before the next call of the task.
    """

    def __init__(self):
        self.expects_post_step = True
        self._watched: tuple[weakref.ref, ...] = ()
        self._weights: Optional[list[int]] = None
        self._own: Optional[list[int]] = None
        self._counted, self._uncounted, self._untrained = False, 0, 0

    def __reduce__(self):
        return LoopCheck, ()

    def begin_step(self, model: nn.Module) -> None:
        """Call this when a training pass begins.

        Args:
            model: Is trained.
        """
        before, self._weights = self._weights, self._versions_of(model)
        counted, self._counted = self._counted, False
        if counted:
            self._uncounted = 0
        elif before is not None and self._weights != before:
            self._uncounted += 1
        if self._uncounted == _PATIENCE and self.expects_post_step:
            self.expects_post_step = False
            warn(
                'task.post_step() is not called after optimizer steps, so start, every and what the method learns have '
                'no effect: add task.post_step() after optimizer.step().'
            )

    def end_step(self, model: nn.Module, own: Iterable[nn.Parameter]) -> None:
        """Call this after an optimizer step, before the method changes its own parameters.

        Args:
            model: Is trained.
            own: The method's own parameters.
        """
        self._counted = True
        stepped = self._weights is not None and self._versions_of(model) != self._weights
        if not stepped or self._own is None:
            return
        missed = bool(self._own) and _versions(own) == self._own
        self._untrained = self._untrained + 1 if missed else 0
        if self._untrained == _PATIENCE:
            warn(
                "the method's own parameters are in no optimizer and do not learn: create the optimizer from "
                "[{'params': model.parameters()}, *task.extra_param_groups()]."
            )

    def constrained(self, own: Iterable[nn.Parameter]) -> None:
        """Call this when the method has changed its own parameters."""
        self._own = _versions(own)

    def _versions_of(self, model: nn.Module) -> list[int]:
        """Of the model's first and last weights: a walk of all of them would take longer than a small layer."""
        watched = [p for p in (ref() for ref in self._watched) if p is not None]
        if not watched or len(watched) < len(self._watched):
            trained = [p for p in model.parameters() if p.requires_grad]
            watched = [*trained[:1], *trained[-1:]]
            self._watched = tuple(map(weakref.ref, watched))
        return [p._version for p in watched if p is not None]


def _versions(parameters: Iterable[nn.Parameter]) -> list[int]:
    return [p._version for p in parameters if p.requires_grad]
