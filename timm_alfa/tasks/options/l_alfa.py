"""Options of L-ALFA."""

from dataclasses import dataclass
from typing import Iterator

from timm_alfa.options import option
from timm_alfa.perturb.options import PROJECTIONS
from timm_alfa.tasks.options.alfa import SearchConfig

DEFAULT_BLOCKS = 'units:9'


@dataclass(frozen=True)
class LAlfaConfig(SearchConfig):
    """Options of L-ALFA."""

    blocks: str = option(DEFAULT_BLOCKS, SearchConfig.__dataclass_fields__['blocks'].metadata['help'])
    mode: str = option(
        'joint', SearchConfig.__dataclass_fields__['mode'].metadata['help'], choices=('separate', 'joint')
    )
    gamma: float = option(1.0, 'weight of the l1 norm of eta', low=0)
    eta_lr: float = option(0.01, 'learning rate of eta', low=0)
    projection: str = option(
        'hyperplane', "eta's set: 'hyperplane' (sum 1) or 'simplex' (sum 1, none negative)", choices=PROJECTIONS
    )

    def no_effect(self) -> Iterator[str]:
        yield from super().no_effect()
        if self.eta_lr == 0:
            yield 'eta_lr=0: eta stays what the first projection makes it.'
        if self.projection == 'simplex' and self.gamma:
            yield f"gamma={self.gamma:g} has no effect with projection='simplex': there the l1 norm of eta is 1."
