"""Standard training: timm's ClassificationTask with the interface of the other methods."""

import torch

from timm_alfa.tasks.base import MethodTask
from timm_alfa.tasks.options.standard import StandardConfig


class StandardTask(MethodTask):
    """Loss and output of `timm.task.ClassificationTask`, the loss times `weight`."""

    config: StandardConfig

    def perturbs(self) -> bool:
        return False

    def clean(self, *batch) -> dict[str, torch.Tensor]:
        result = super().clean(*batch)
        return {'loss': self.config.weight * result['loss'], 'output': result['output']}
