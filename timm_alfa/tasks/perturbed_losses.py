"""The perturbed losses of one step, and when each of them is differentiated."""

from functools import partial
from typing import Any, Callable, Optional, Sequence

import torch

from timm_alfa.perturb.features import Delta, perturb_feature, perturbations
from timm_alfa.perturb.loss_scale import underflows
from timm_alfa.replay import scalars
from timm_alfa.replay.accumulate import DeferredLosses
from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.replay.replay import Replay
from timm_alfa.utils import pytree


class PerturbedLosses:
    """The sum over groups of features of L(f_i + delta_i), in equation 3.

    A loss is differentiated as soon as it is computed, and its graph freed, where that gives the same gradients: then
    the activations of only one tail are in memory at a time. Elsewhere its graph waits for the backward pass.

    Args:
        loss: Computes a loss from changes of features, which are given by index.
        replay: Recorded the features.
        record: The clean pass.
        attached: Whether the losses train what comes before the features, too.
        deferred: Differentiates losses at once; None: all graphs wait.

    Attributes:
        values: The losses so far, detached, in order.
    """

    def __init__(
        self,
        loss: Callable[[dict[int, Callable]], torch.Tensor],
        replay: Replay,
        record: ForwardRecord,
        attached: bool,
        deferred: Optional[DeferredLosses],
    ):
        self.values: list[torch.Tensor] = []
        self._loss, self._replay, self._record = loss, replay, record
        self._attached, self._deferred = attached, deferred
        self._with_graph: list[torch.Tensor] = []

    def add(self, group: Sequence[int], deltas: Sequence[Delta], weight: Optional[float] = None) -> None:
        """Computes one more loss.

        Args:
            group: Indices of the features that are perturbed together.
            deltas: What is added to each of them.
            weight: A factor of the loss in the sum; None: 1.
        """
        deferred = self._deferred_for(group)
        if deferred is not None:
            self._add_deferred(deferred, group[0], deltas[0], weight)
        else:
            self._with_graph.append(self._weighted(perturbations(group, deltas), weight))

    def total(self) -> torch.Tensor:
        """The weighted sum of the losses, with gradients."""
        losses = list(self._with_graph)
        if self._deferred is not None and self._deferred.values:
            losses.append(self._deferred.total())
        return scalars.total(losses)

    def mean(self) -> torch.Tensor:
        """The mean of the losses, detached."""
        return scalars.mean(self.values)

    def _deferred_for(self, group: Sequence[int]) -> Optional[DeferredLosses]:
        """What differentiates the loss of a group at once; None where its graph has to wait.

        That is where something bypasses the feature, and in fp16, where gradients of the unscaled loss underflow.
        """
        if self._deferred is None or not self._deferred.possible:
            return None
        features = [self._record.features[index] for index in group]
        possible = self._replay.stands_alone(*group) and not underflows(features, self._record.output)
        return self._deferred if possible else None

    def _weighted(self, changes: dict[int, Callable], weight: Optional[float]) -> torch.Tensor:
        """A loss times its weight; its value is noted without."""
        loss = self._loss(changes)
        self.values.append(loss.detach())
        return loss if weight is None else weight * loss

    def _add_deferred(self, deferred: DeferredLosses, index: int, delta: Delta, weight: Optional[float]) -> None:
        feature = self._record.features[index]
        perturbed = perturb_feature(delta, feature if self._attached else pytree.detached(feature))
        deferred.add(partial(self._loss_of_feature, index, weight), perturbed)

    def _loss_of_feature(self, index: int, weight: Optional[float], feature: Any) -> torch.Tensor:
        """The loss with another feature in place of the model's."""
        if self._replay.is_overwritten(index):
            feature = pytree.cloned(feature)  # a leaf cannot be written into
        return self._weighted({index: lambda _: feature}, weight)
