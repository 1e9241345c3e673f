"""Options of every method that searches in the image; sizes are in pixels of [0, 1]."""

from dataclasses import dataclass
from typing import Iterator, Optional

from timm_alfa.options import option
from timm_alfa.perturb.options import size_errors


@dataclass(frozen=True)
class PixelConfig:
    """Options of every method that searches in the image; sizes are in pixels of [0, 1]."""

    steps: int = option(5, 'steps of the search', low=0)
    step_size: float = option(1 / 255, 'size of a step, in pixels of [0, 1]', low=0)
    eps: float = option(4 / 255, 'largest change of a pixel, in pixels of [0, 1]', above=0)
    random_start: bool = option(True, 'start the search at random within eps')
    mean: Optional[tuple[float, ...]] = option(None, "mean by which the loader normalizes; None: the model's")
    std: Optional[tuple[float, ...]] = option(
        None, "standard deviation by which the loader normalizes; None: the model's", above=0
    )

    def errors(self, flag_name) -> Iterator[str]:
        yield from size_errors(flag_name, step_size=self.step_size, eps=self.eps)
        if (self.mean is None) != (self.std is None):
            yield f'{flag_name("mean")} and {flag_name("std")} go together: pass both or neither.'
        elif self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            yield (
                f'{flag_name("mean")} has {len(self.mean)} values and {flag_name("std")} {len(self.std)}: '
                'pass equally many of each.'
            )

    def no_effect(self) -> Iterator[str]:
        """Options without effect, one line each."""
        if (self.steps == 0 or self.step_size == 0) and not self.random_start:
            yield f'steps={self.steps}, step_size={self.step_size:g} without random_start: no image is perturbed.'
        elif self.steps and self.step_size == 0:
            yield f'step_size=0: {self.steps} steps are paid for and perturbations are random only.'
        elif not self.random_start and self.eps >= self.steps * self.step_size:
            yield (
                f'eps={self.eps:g} cannot bind: {self.steps} steps of {self.step_size:g} reach '
                f'{self.steps * self.step_size:g} at most.'
            )
