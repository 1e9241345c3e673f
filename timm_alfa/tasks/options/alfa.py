"""Options of the search that ALFA and L-ALFA share; the defaults are the paper's for CIFAR-10."""

from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from timm_alfa.options import PerBlock, numbers, option
from timm_alfa.perturb.options import NORMS
from timm_alfa.tasks.options.feature import FeatureConfig


@dataclass(frozen=True)
class SearchConfig(FeatureConfig):
    """Options of the search that ALFA and L-ALFA share; the defaults are the paper's for CIFAR-10."""

    steps: int = option(5, 'K, steps of the search', low=0)
    step_size: PerBlock = option(1 / 255, 'alpha, size of a step, or one size per block', low=0)
    eps: Optional[float] = option(
        None, 'bound of each tensor of a perturbation; None: unbounded, as in the paper', above=0
    )
    norm: str = option('linf', 'norm of steps and bound, taken in each tensor separately', choices=NORMS)
    random_start: bool = option(False, 'start the search at random within eps (within a step where unbounded)')

    def no_effect(self) -> Iterator[str]:
        yield from super().no_effect()
        sizes, largest = numbers(self.step_size), max(numbers(self.step_size))
        starts = self.random_start and (largest > 0 or self.eps is not None)
        if self.steps == 0 and not starts:
            yield 'steps=0 without a random start: nothing is perturbed, the clean loss is counted twice.'
        elif self.steps and largest == 0:
            effect = 'perturbations are random only' if starts else 'nothing is perturbed'
            yield f'step_size=0: {self.steps} steps are paid for and {effect}.'
        elif self.steps and 0 in sizes:
            yield f'step_size is 0 for some blocks: {self.steps} steps are paid for there, and have no effect.'
        reach = self.steps * largest
        if self.eps is not None and not self.random_start and self.eps >= reach > 0 and not self.controls():
            yield f'eps={self.eps:g} cannot bind: {self.steps} steps of {largest:g} reach {reach:g} at most.'

    def controls(self) -> bool:
        """Whether step sizes change in training."""
        return False


@dataclass(frozen=True)
class AlfaConfig(SearchConfig):
    """Options of ALFA."""

    gap: Optional[float] = option(
        None,
        'hold the perturbed loss this share above the clean one (0.05: 5%), by changing the step size of each block '
        'after each update; step_size is where they start',
        above=0,
    )

    def controls(self) -> bool:
        return self.gap is not None

    def errors(self, flag_name: Callable[[str], str]) -> Iterator[str]:
        yield from super().errors(flag_name)
        if self.gap is not None and self.steps == 0:
            yield f'{flag_name("gap")} is {self.gap:g}: it needs at least one step, and {flag_name("steps")} is 0.'
        if self.gap is not None and 0 in numbers(self.step_size):
            yield f'{flag_name("step_size")} is 0: with {flag_name("gap")} pass a size to start from.'
