"""Adversarial training (Madry et al. 2018): the loss of adversarial images, and no other."""

from dataclasses import dataclass

import torch

from timm_alfa.options import option
from timm_alfa.tasks.pixel_task import PixelConfig, PixelTask


@dataclass(frozen=True)
class AdvTrainConfig(PixelConfig):
    """Options of adversarial training; the defaults are Madry's for CIFAR-10."""

    steps: int = option(10, 'steps of the search', low=0)
    step_size: float = option(2 / 255, 'size of a step, in pixels of [0, 1]', low=0)
    eps: float = option(8 / 255, "bound of a pixel's move, in pixels of [0, 1]", above=0)


class AdvTrainTask(PixelTask):
    """min over weights of max over |delta| <= eps of the loss (equation 2.1 of Madry et al.).

    The network sees perturbed images only: they move its running statistics, and 'output' are their logits.
    """

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        images, delta = self.moved(input, target)
        output = self.trainable_module(images)
        loss = self.criterion(output, target)
        return {'loss': loss, 'output': output, 'loss_adv': loss.detach(), 'delta_norm': self.delta_norm(delta)}
