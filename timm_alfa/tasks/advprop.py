"""AdvProp (Xie et al. 2020): clean images, and adversarial images through separate batch norms."""

import torch
import torch.nn as nn

from timm_alfa.errors import warn
from timm_alfa.replay import norms
from timm_alfa.replay.redirect import without_checkpointing
from timm_alfa.tasks.options.advprop import AdvPropConfig
from timm_alfa.tasks.pixel_task import PixelTask
from timm_alfa.utils.unwrap import unwrap


class AdvPropTask(PixelTask):
    """Clean loss through the main norms plus adversarial loss through auxiliary ones (algorithm 1 of Xie et al.).

        loss = L(x) + L_aux(x + delta)

    The auxiliary norms start as copies of the model's and live in the task, so the model keeps its keys. The search and
    the adversarial pass go through them. Only the adversarial pass moves their running statistics, and only clean
    images move the model's. timm's split batch norm would run both halves in one pass, but it changes the model and
    its keys, supports batch norm only, and would let each step of the search move running statistics.
    """

    def __init__(self, model: nn.Module, criterion=None, *, config: AdvPropConfig, **kwargs):
        aux = norms.make_aux_norms(unwrap(model))
        super().__init__(model, criterion, config=config, extras={'aux': aux} if aux else None, **kwargs)
        if reason := norms.why_no_aux(self.model):
            warn(f'{reason}: there are no auxiliary norms, clean and adversarial images go through the same layers.')

    def adversarial_norms(self):
        return norms.swap_norms(self.model, self.get_extra('aux')) if self.extras else super().adversarial_norms()

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        # the clean pass
        output = self.objective.call(self.trainable_module, input, target)
        loss_clean = self.objective.loss(output, input, target)

        # the adversarial pass, not checkpointed: the backward pass would run it again through the main norms
        images, delta = self.attack(input, target)
        with self.adversarial_norms(), without_checkpointing(self.model.modules() if self.extras else ()):
            loss_adv = self.loss_of(images, target)

        return {
            'loss': loss_clean + loss_adv,
            'output': output,
            'loss_clean': loss_clean.detach(),
            'loss_adv': loss_adv.detach(),
            'delta_norm': self.delta_norm(delta),
        }
