"""Options of moment exchange; the defaults are the paper's for ImageNet."""

from dataclasses import dataclass
from typing import Iterator

from timm_alfa.options import option


@dataclass(frozen=True)
class MoExConfig:
    """Options of moment exchange; the defaults are the paper's for ImageNet."""

    layer: str = option('stem', "feature whose moments are exchanged: 'stem', or one block or module name")
    lam: float = option(0.9, "weight of an image's own label; the rest goes to the partner's", low=0, high=1)
    prob: float = option(0.5, 'share of the batches in which moments are exchanged', low=0, high=1)
    norm: str = option(
        'pono',
        "moments over the channels of a position ('pono'), over the positions of a channel "
        "('in'), or over groups of channels ('gn')",
        choices=('pono', 'in', 'gn'),
    )
    groups: int = option(4, "groups of channels for norm='gn'; 1 is layer norm", low=1)

    def no_effect(self) -> Iterator[str]:
        """Options without effect, one line each."""
        if self.prob == 0:
            yield 'prob=0: moments are never exchanged, this is standard training.'
        if self.groups != 4 and self.norm != 'gn':
            yield f"groups={self.groups} has no effect with norm='{self.norm}'."
