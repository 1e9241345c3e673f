"""Gaussian noise on features in place of ALFA's search: the baseline of table 7 of the paper."""

from dataclasses import dataclass
from typing import Iterator, Optional

import torch

from timm_alfa.options import option
from timm_alfa.perturb.precision import search_dtype
from timm_alfa.perturb.strength import unit_lengths
from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.tasks.feature_task import FeatureConfig, FeatureTask
from timm_alfa.utils import pytree


@dataclass(frozen=True)
class NoiseConfig(FeatureConfig):
    """Options of noise on features."""

    std: float = option(1 / 255, 'standard deviation of the noise', low=0)

    def no_effect(self) -> Iterator[str]:
        yield from super().no_effect()
        if self.std == 0:
            yield 'std=0: nothing is perturbed, the clean loss is counted twice.'


class NoiseTask(FeatureTask):
    """Clean loss plus the loss with Gaussian noise added to the features (equation 3 with a random delta_i).

    The noise is drawn from the generator of the features' device, anew for every block and step.
    """

    def search(self, record: ForwardRecord, group: tuple[int, ...], clean_gradients: Optional[list]) -> list:
        """delta_i ~ N(0, std^2)."""
        return [self._noise(record.features[i]) for i in group]

    def how_to_change(self, verb: str) -> str:
        return f"{verb.capitalize()} std (unit='rms' makes it relative to the feature)"

    def _noise(self, feature) -> list[torch.Tensor]:
        tensors = pytree.floats(feature)
        sizes = [self.config.std * length for length in unit_lengths(feature, self.config.unit)]
        return [torch.randn_like(f, dtype=search_dtype(f)) * size for f, size in zip(tensors, sizes, strict=True)]
