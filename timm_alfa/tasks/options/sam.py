"""Options of sharpness-aware minimization; the default is that of Foret et al."""

from dataclasses import dataclass
from typing import Iterator

from timm_alfa.options import option


@dataclass(frozen=True)
class SamConfig:
    """Options of sharpness-aware minimization; the default is that of Foret et al."""

    rho: float = option(0.05, 'length of the step in weight space', low=0)
    adaptive: bool = option(False, 'measure the step in units of each weight (ASAM); rho is then about 10 times larger')
    every: int = option(1, 'perturb the weights in every n-th update', low=1)
    start: int = option(0, 'first update that perturbs', low=0)

    def no_effect(self) -> Iterator[str]:
        """Options without effect, one line each."""
        if self.rho == 0:
            yield 'rho=0: no weight is perturbed, this is standard training.'
