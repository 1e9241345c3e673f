"""Standard training: timm's ClassificationTask with the interface of the other methods."""

from dataclasses import dataclass
from typing import Iterator

import torch

from timm_alfa.options import option
from timm_alfa.tasks.base import MethodTask


@dataclass(frozen=True)
class StandardConfig:
    """Options of standard training."""

    weight: float = option(
        1.0, 'factor of the loss: 2 gives gradients the size that clean plus perturbed loss have', above=0
    )

    def no_effect(self) -> Iterator[str]:
        """Options without effect, one line each: none."""
        yield from ()


class StandardTask(MethodTask):
    """Loss and output of `timm.task.ClassificationTask`, the loss times `weight`."""

    def perturbs(self) -> bool:
        return False

    def clean(self, *batch) -> dict[str, torch.Tensor]:
        result = super().clean(*batch)
        return {'loss': self.config.weight * result['loss'], 'output': result['output']}
