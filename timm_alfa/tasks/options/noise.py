"""Options of noise on features."""

from dataclasses import dataclass
from typing import Iterator

from timm_alfa.options import option
from timm_alfa.tasks.options.feature import FeatureConfig


@dataclass(frozen=True)
class NoiseConfig(FeatureConfig):
    """Options of noise on features."""

    std: float = option(1 / 255, 'standard deviation of the noise', low=0)

    def no_effect(self) -> Iterator[str]:
        yield from super().no_effect()
        if self.std == 0:
            yield 'std=0: nothing is perturbed, the clean loss is counted twice.'
