"""Standard training, the yardstick: timm's ClassificationTask with the interface of the other methods."""
from dataclasses import dataclass

import torch

from timm_alfa.tasks.base import MethodTask


@dataclass(frozen=True)
class StandardConfig:
    """Standard training has no options."""


class StandardTask(MethodTask):
    """Loss and output of `timm.task.ClassificationTask`, nothing more."""

    def perturbs(self) -> bool:
        return False

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        result = super().forward(input, target)
        return {key: result[key] for key in ('loss', 'output')}
