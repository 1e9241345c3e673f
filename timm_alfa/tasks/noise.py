"""Gaussian noise on features in place of ALFA's search: the baseline of table 7 of the paper."""

from dataclasses import dataclass
from typing import Iterator, Optional

import torch

from timm_alfa.options import option
from timm_alfa.perturb import ascent
from timm_alfa.replay.replay import Record
from timm_alfa.tasks.feature_task import FeatureConfig, FeatureTask
from timm_alfa.utils import pytree


@dataclass(frozen=True)
class NoiseConfig(FeatureConfig):
    """Options of noise on features."""

    std: float = option(1 / 255, "standard deviation of the noise, in the features' own units", low=0)

    def no_effect(self) -> Iterator[str]:
        yield from super().no_effect()
        if self.std == 0:
            yield 'std=0: nothing is perturbed, the clean loss is counted twice.'


class NoiseTask(FeatureTask):
    """Clean loss plus the loss with Gaussian noise added to the features (equation 3 with a random delta).

    The noise comes from the generator of the features' device and is drawn again for every block and step.
    """

    def search(self, record: Record, target: torch.Tensor, group: tuple[int, ...], clean: Optional[list]) -> list:
        return [[self._draw(f) for f in pytree.floats(record.features[i])] for i in group]

    def _draw(self, feature: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(feature, dtype=ascent.at_least_float32(feature[:0]).dtype) * self.config.std
