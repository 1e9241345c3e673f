"""Gaussian noise on features in place of ALFA's search: the baseline of table 7 of the paper."""

from typing import Optional

import torch

from timm_alfa.perturb.precision import search_dtype
from timm_alfa.perturb.strength import unit_lengths
from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.tasks.feature_task import FeatureTask
from timm_alfa.tasks.options.noise import NoiseConfig
from timm_alfa.utils import pytree


class NoiseTask(FeatureTask):
    """Clean loss plus the loss with Gaussian noise added to the features (equation 3 with a random delta_i).

    The noise is drawn from the generator of the features' device, anew for every block and step.
    """

    config: NoiseConfig

    def search(self, record: ForwardRecord, group: tuple[int, ...], clean_gradients: Optional[list]) -> list:
        """delta_i ~ N(0, std^2)."""
        return [self._noise(record.features[i]) for i in group]

    def how_to_change(self, verb: str) -> str:
        return f"{verb.capitalize()} std (unit='rms' makes it relative to the feature)"

    def _noise(self, feature) -> list[torch.Tensor]:
        tensors = pytree.floats(feature)
        sizes = [self.config.std * length for length in unit_lengths(feature, self.config.unit)]
        return [torch.randn_like(f, dtype=search_dtype(f)) * size for f, size in zip(tensors, sizes, strict=True)]
