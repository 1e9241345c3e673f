"""SAM (Foret et al. 2021): the loss at the weights nearby where it is highest; with `adaptive`, ASAM (Kwon et al.)."""

from contextlib import contextmanager
from typing import Iterator, Optional

import torch
import torch.nn as nn
from torch.nn.modules.module import register_module_forward_pre_hook

from timm_alfa.errors import ConfigError
from timm_alfa.perturb.loss_scale import LossScale, gradients, underflows
from timm_alfa.perturb.precision import at_least_float32
from timm_alfa.perturb.weights import call_with, moved, steepest_step
from timm_alfa.replay import norms
from timm_alfa.replay.accumulate import DeferredLosses
from timm_alfa.replay.redirect import is_checkpointed
from timm_alfa.tasks.base import MethodTask
from timm_alfa.tasks.options.sam import SamConfig
from timm_alfa.utils import pytree, rng
from timm_alfa.utils.fsdp import uses_fsdp

_SMALLEST_SCALE = 0.01  # eta of Kwon et al.


class SamTask(MethodTask):
    """Minimizes the loss at the weights w + e instead of w (equations 2 and 3 of Foret et al.).

        e = rho * g / ||g||, where g is the gradient of L(w)
        loss = L(w + e)

    e is a constant: the gradient at w + e is applied to w. Both passes draw the same random numbers, and only the clean
    one moves running statistics, as in the authors' code. Every call finds e for its own batch: with accumulation it
    differs between the parts of a batch, and with several processes between them ('m-sharpness').

    Raises:
        ConfigError: In a step, if the weights are sharded, or activations are checkpointed in fp16.
    """

    def __init__(self, model: nn.Module, criterion=None, *, config: SamConfig, **kwargs):
        super().__init__(model, criterion, config=config, **kwargs)
        self.loss_scale = LossScale()

    def perturbs(self) -> bool:
        return self.config.rho > 0 and super().perturbs()

    def perturbed(self, *batch) -> dict[str, torch.Tensor]:
        if uses_fsdp(self):
            raise ConfigError('sam does not support FSDP2: launch with DDP (--multi_gpu), or choose another task.')

        # the clean pass, and its gradient
        states = rng.states(pytree.device_of(batch))
        output = self.objective.call(self.trainable_module, *batch)
        loss_clean = self.objective.loss(output, *batch)
        weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        is_fp16 = underflows(list(weights.values()), output)
        scale = self.loss_scale if is_fp16 else None
        with _calls_of_modules() as calls:
            grads = gradients(loss_clean, list(weights.values()), scale, allow_unused=True)

        # w + e
        steps = steepest_step(grads, self.config.rho, self._scales(weights))
        pairs = zip(weights.items(), steps, strict=True)
        perturbed = {name: moved(weight, step) for (name, weight), step in pairs if step is not None}

        # the perturbed pass; a checkpoint runs modules again in its backward pass, which must find w + e, too
        at_once = bool(calls) or is_checkpointed(self.model.modules())
        if at_once and is_fp16:
            raise ConfigError('sam does not support checkpointed activations in fp16: use bf16, or do not checkpoint.')
        differentiated = list(perturbed.values()) if at_once else None
        loss_adv = call_with(self.model, perturbed, lambda: self._loss(batch, states, differentiated))

        return {
            'loss': loss_adv,
            'output': pytree.detached(output),
            'loss_clean': loss_clean.detach(),
            'loss_adv': loss_adv.detach(),
        }

    def _scales(self, weights: dict[str, nn.Parameter]) -> Optional[list[Optional[torch.Tensor]]]:
        """T of ASAM: |w| + 0.01 for what has 'weight' in its name, and 1 (None) for biases and the like."""
        if not self.config.adaptive:
            return None
        return [
            at_least_float32(weight.detach()).abs() + _SMALLEST_SCALE if 'weight' in name else None
            for name, weight in weights.items()
        ]

    def _loss(self, batch: tuple, states: Optional[rng.States], weights: Optional[list[torch.Tensor]]) -> torch.Tensor:
        """The loss with the weights that the model has at the moment.

        Args:
            states: Of the random generators when the clean pass began.
            weights: Differentiate at these weights at once; None: leave that to the backward pass.
        """
        with norms.freeze_running_stats(self.model), rng.preserve_rng(pytree.device_of(batch)):
            rng.restore(states or {})
            loss = self.objective.loss(self.objective.call(self.model, *batch), *batch)
            if weights is None:
                return loss
            others = (p for module in self.objective.modules for p in module.parameters())
            deferred = DeferredLosses([*weights, *others, *pytree.floats(batch)])
            deferred.add(lambda _: loss, ())
        return deferred.total()


@contextmanager
def _calls_of_modules() -> Iterator[list]:
    """While inside, calls of any module are noted in the list: in a backward pass, those of checkpoints."""
    calls: list[str] = []
    handle = register_module_forward_pre_hook(lambda module, args: calls.append(type(module).__name__))
    try:
        yield calls
    finally:
        handle.remove()
