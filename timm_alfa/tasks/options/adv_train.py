"""Options of adversarial training; the defaults are those of Madry et al. for CIFAR-10."""

from dataclasses import dataclass

from timm_alfa.options import option
from timm_alfa.tasks.options.pixel import PixelConfig


@dataclass(frozen=True)
class AdvTrainConfig(PixelConfig):
    """Options of adversarial training; the defaults are those of Madry et al. for CIFAR-10."""

    steps: int = option(10, 'steps of the search', low=0)
    step_size: float = option(2 / 255, 'size of a step, in pixels of [0, 1]', low=0)
    eps: float = option(8 / 255, 'largest change of a pixel, in pixels of [0, 1]', above=0)
