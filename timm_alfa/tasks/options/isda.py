"""Options of implicit semantic data augmentation; the default is the authors' for CIFAR."""

from dataclasses import dataclass
from typing import Iterator, Optional

from timm_alfa.options import option


@dataclass(frozen=True)
class IsdaConfig:
    """Options of implicit semantic data augmentation; the default is the authors' for CIFAR."""

    strength: float = option(0.5, 'lambda_0, how strongly features vary at the end of the ramp', low=0)
    ramp: Optional[int] = option(
        None, 'updates over which the strength rises linearly from 0; None: the whole training', low=1
    )
    covariance: str = option(
        'full',
        "'full' covariance matrices of the classes, or their 'diagonal', as in the authors' code for ImageNet",
        choices=('full', 'diagonal'),
    )

    def no_effect(self) -> Iterator[str]:
        """Options without effect, one line each."""
        if self.strength == 0:
            yield 'strength=0: features do not vary, this is standard training.'
