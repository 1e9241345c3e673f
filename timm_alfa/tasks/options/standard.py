"""Options of standard training."""

from dataclasses import dataclass
from typing import Iterator

from timm_alfa.options import option


@dataclass(frozen=True)
class StandardConfig:
    """Options of standard training."""

    weight: float = option(
        1.0, 'factor of the loss: 2 gives gradients the size that clean plus perturbed loss have', above=0
    )

    def no_effect(self) -> Iterator[str]:
        """Options without effect, one line each: none."""
        yield from ()
