"""What a run consists of, once it is built."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from accelerate import Accelerator
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from timm_alfa.tasks.base import MethodTask
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.setup.fsdp import unsharded_copy


@dataclass
class Run:
    """What the loop trains.

    Attributes:
        input_config: How the model takes images, in timm's words: input_size, mean, std, interpolation, crop_pct.
        model: The plain timm model inside `task`.
        task: The method, as created.
        wrapped: The task as accelerate prepared it: call this one.
        lr: The resolved learning rate.
        meta_model: The model on the meta device, if `model` is sharded.
        stream: What a GPU's work of this run is started on; None for the default stream.
        together: Number of runs that share the process.
        commit: Of the code, as it was when it was loaded.
    """

    config: TrainConfig
    accelerator: Accelerator
    data: Any
    input_config: dict[str, Any]
    model: nn.Module
    task: MethodTask
    wrapped: nn.Module
    optimizer: Any
    schedule: Optional[Scheduler]
    ema: Optional[ModelEmaV3]
    lr: float
    updates_per_epoch: int
    meta_model: Optional[nn.Module] = None
    stream: Optional[torch.cuda.Stream] = None
    together: int = 1
    commit: Optional[str] = None

    @property
    def images_per_batch(self) -> int:
        """Images of one batch, over all processes."""
        return self.config.data.batch_size * self.accelerator.num_processes

    @property
    def effective_batch(self) -> int:
        """Images of one update, over all processes and accumulation steps."""
        return self.images_per_batch * self.config.optim.grad_accum_steps

    @property
    def images_per_epoch(self) -> int:
        """Images of one epoch, over all processes."""
        return min(len(self.data.train) * self.images_per_batch, self.data.train_images)

    @property
    def current_lr(self) -> float:
        """The learning rate now, before the layer decay that a schedule applies."""
        group = self.optimizer.param_groups[0]
        if self.schedule is None:
            return group['lr']
        return group['lr'] / group.get('lr_scale', 1.0)

    @property
    def eval_model(self) -> nn.Module:
        """What validation runs: the EMA of the weights if there is one."""
        return self.ema.module if self.ema is not None else self.task.get_eval_model()

    @property
    def saved_model(self) -> nn.Module:
        """What is saved as the run's weights: their EMA if there is one, never a compiled wrapper."""
        return self.ema.module if self.ema is not None else self.model

    def is_over(self, state: TrainState) -> bool:
        """Whether nothing is left to train: all epochs are done, or the last better checkpoint is too long ago."""
        return state.is_over(self.config.epochs, self.config.selection.patience)

    @property
    def blocks(self) -> Optional[list[str]]:
        """Names of the perturbed features, if the method perturbs features."""
        return list(self.task.blocks) or None

    def unsharded(self, model: nn.Module) -> nn.Module:
        """A model that one process can run on its own: the given one, or a temporary copy of it if it is sharded.

        Args:
            model: `model`, or that of the EMA. Every process calls it.
        """
        return model if self.meta_model is None else unsharded_copy(self.meta_model, model, self.accelerator.device)
