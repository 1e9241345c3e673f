"""ALFA: features are moved to where the loss is higher, by ascent (equations 3 and 4)."""

from dataclasses import dataclass
from typing import Iterator, Optional, Sequence

import torch

from timm_alfa.errors import BlockError
from timm_alfa.options import option
from timm_alfa.perturb import ascent
from timm_alfa.perturb.loss_scale import LossScale, gradients
from timm_alfa.replay import norms
from timm_alfa.replay.replay import Record
from timm_alfa.tasks.feature_task import FeatureConfig, FeatureTask, additions
from timm_alfa.utils import pytree


@dataclass(frozen=True)
class AlfaConfig(FeatureConfig):
    """Options of ALFA; the defaults are the paper's for CIFAR-10."""

    steps: int = option(5, 'K, steps of the search', low=0)
    step_size: float = option(1 / 255, 'alpha, size of a step', low=0)
    eps: Optional[float] = option(None, 'bound of each tensor of a perturbation; None: none, as in the paper', above=0)
    norm: str = option('linf', 'norm of steps and bound, of each tensor by itself', choices=ascent.NORMS)
    random_start: bool = option(False, 'start the search at random within eps (within a step where unbounded)')

    def no_effect(self) -> Iterator[str]:
        yield from super().no_effect()
        starts = self.random_start and (self.step_size > 0 or self.eps is not None)
        if self.steps == 0 and not starts:
            yield 'steps=0 without a random start: nothing is perturbed, the clean loss is counted twice.'
        elif self.steps and self.step_size == 0:
            yield (
                f'step_size=0: {self.steps} steps are paid for and '
                + ('features are moved at random only.' if starts else 'nothing is perturbed.')
            )
        reach = self.steps * self.step_size
        if self.eps is not None and not self.random_start and self.eps >= reach > 0:
            yield f'eps={self.eps:g} cannot bind: {self.steps} steps of {self.step_size:g} reach {reach:g} at most.'


class AlfaTask(FeatureTask):
    """Adversarial feature augmentation (equations 3 and 4): the perturbation is found by ascent on the loss."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_scale = LossScale()

    def clean_gradients(self, record: Record, loss_clean: torch.Tensor) -> Optional[list]:
        """Gradients of one backward pass through the tail: at delta = 0 they are the first step of every search."""
        if not self.config.steps or self.config.random_start or self.config.bn == 'aux':
            return None
        with norms.freeze_running_stats(self.model):
            return self._gradients(loss_clean, record.features, record, range(len(self.blocks)), retain_graph=True)

    def search(self, record: Record, target: torch.Tensor, group: tuple[int, ...], clean: Optional[list]) -> list:
        features = [pytree.floats(record.features[i]) for i in group]
        shape = lambda flat: _nested(flat, features)  # noqa: E731

        def gradient(flat):
            delta = shape([d.detach().requires_grad_() for d in flat])
            with norms.freeze_running_stats(self.extras or self.model):  # auxiliary norms too
                loss = self.criterion(self.tail(record, additions(group, delta)), target)
                return pytree.floats(self._gradients(loss, delta, record, group))

        config = self.config
        with torch.enable_grad():
            found = ascent.ascend(
                gradient,
                [self._start(f.detach()) for f in pytree.floats(features)],
                config.steps,
                config.step_size,
                config.eps,
                config.norm,
                pytree.floats([clean[i] for i in group]) if clean else None,
            )
        return shape([d.detach() for d in found])

    def _start(self, feature: torch.Tensor) -> torch.Tensor:
        """Delta_0, in single precision or better: a step can be smaller than a half-precision feature resolves."""
        delta = torch.zeros_like(feature, dtype=ascent.at_least_float32(feature[:0]).dtype)
        if not self.config.random_start:
            return delta
        radius = self.config.step_size if self.config.eps is None else self.config.eps
        return ascent.random_within(delta, radius, self.config.norm)

    def _gradients(self, loss: torch.Tensor, at: Sequence, record: Record, group: Sequence[int], **kwargs) -> list:
        """Gradients of the loss, up to a positive factor, at the features of a group or what is added to them.

        Raises:
            BlockError: Nothing of a feature reaches the loss.
        """
        flat = pytree.floats(at)
        scale = self.loss_scale if self.in_fp16(record, group) else None
        nested = _nested(gradients(loss, flat, scale, allow_unused=True, **kwargs), at)
        dead = [self.blocks[i] for i, grads in zip(group, nested, strict=True) if all(g is None for g in grads)]
        if dead:
            raise BlockError(f'nothing of {", ".join(dead)} reaches the loss: name other blocks.')
        return [
            [torch.zeros_like(x) if g is None else g for g, x in zip(grads, pytree.floats(one), strict=True)]
            for grads, one in zip(nested, at, strict=True)
        ]


def _nested(flat: Sequence[torch.Tensor], like: Sequence) -> list[list[torch.Tensor]]:
    """Splits a flat sequence of tensors into one list for each feature."""
    rest = iter(flat)
    return [[next(rest) for _ in pytree.floats(feature)] for feature in like]
