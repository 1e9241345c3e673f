"""Options of every method that adds something to features."""

from dataclasses import dataclass
from typing import Callable, Iterator

from timm_alfa.options import PerBlock, numbers, option
from timm_alfa.perturb.options import UNITS


@dataclass(frozen=True)
class FeatureConfig:
    """Options of every method that adds something to features."""

    blocks: str = option('last', 'features: last, 3, 1,3, all, units, units:9, convs, or module names and globs')
    unit: str = option(
        'absolute',
        "what sizes are in: the features' own units ('absolute'), or multiples of the root mean square of each tensor "
        "of a feature ('rms')",
        choices=UNITS,
    )
    weight: PerBlock = option(1.0, 'lambda, the weight of the perturbed loss, or one weight per block', low=0)
    reduction: str = option(
        'sum',
        "'sum': clean + weight * sum_i adv_i; 'mean': (clean + weight * mean_i adv_i) / (1 + weight)",
        choices=('sum', 'mean'),
    )
    grad: str = option(
        'full',
        "the perturbed loss trains the 'full' network, or only the 'tail' after the feature",
        choices=('full', 'tail'),
    )
    bn: str = option(
        'clean',
        "running statistics: updated by the 'clean' pass alone, 'shared' with the perturbed pass, "
        "or 'aux': the perturbed pass has separate norms",
        choices=('clean', 'shared', 'aux'),
    )
    mode: str = option(
        'separate',
        "'separate': one perturbed loss per block; 'joint': all blocks perturbed in one",
        choices=('separate', 'joint'),
    )
    every: int = option(1, 'perturb every n-th update', low=1)
    start: int = option(0, 'first update that perturbs', low=0)

    def no_effect(self) -> Iterator[str]:
        """Options without effect, one line each."""
        weights = numbers(self.weight)
        if not any(weights):
            yield 'weight=0: the perturbed loss is computed and ignored.'
        elif not all(weights):
            yield 'weight is 0 for some blocks: their perturbed losses are computed and ignored.'

    def errors(self, flag_name: Callable[[str], str]) -> Iterator[str]:
        """Options that contradict each other, one line each."""
        if self.mode == 'joint' and isinstance(self.weight, tuple):
            yield f'{flag_name("weight")} has one value per block: with {flag_name("mode")} joint there is one loss.'
