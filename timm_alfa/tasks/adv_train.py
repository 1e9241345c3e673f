"""Adversarial training (Madry et al. 2018): the loss of adversarial images alone."""

from dataclasses import dataclass

import torch

from timm_alfa.options import option
from timm_alfa.tasks.pixel_task import PixelConfig, PixelTask


@dataclass(frozen=True)
class AdvTrainConfig(PixelConfig):
    """Options of adversarial training; the defaults are those of Madry et al. for CIFAR-10."""

    steps: int = option(10, 'steps of the search', low=0)
    step_size: float = option(2 / 255, 'size of a step, in pixels of [0, 1]', low=0)
    eps: float = option(8 / 255, 'largest change of a pixel, in pixels of [0, 1]', above=0)


class AdvTrainTask(PixelTask):
    """min over weights of max over |delta| <= eps of L(x + delta) (equation 2.1 of Madry et al.).

    The network sees adversarial images only: they move its running statistics, and 'output' is their logits.
    """

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        images, delta = self.attack(input, target)
        output = self.objective.call(self.trainable_module, images, target)
        loss = self.objective.loss(output, images, target)
        return {'loss': loss, 'output': output, 'loss_adv': loss.detach(), 'delta_norm': self.delta_norm(delta)}
