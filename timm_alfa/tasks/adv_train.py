"""Adversarial training (Madry et al. 2018): the loss of adversarial images alone."""

import torch

from timm_alfa.tasks.options.adv_train import AdvTrainConfig
from timm_alfa.tasks.pixel_task import PixelTask


class AdvTrainTask(PixelTask):
    """min over weights of max over |delta| <= eps of L(x + delta) (equation 2.1 of Madry et al.).

    The network sees adversarial images only: they move its running statistics, and 'output' is their logits.
    """

    config: AdvTrainConfig

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        images, delta = self.attack(input, target)
        output = self.objective.call(self.trainable_module, images, target)
        loss = self.objective.loss(output, images, target)
        return {'loss': loss, 'output': output, 'loss_adv': loss.detach(), 'delta_norm': self.delta_norm(delta)}
