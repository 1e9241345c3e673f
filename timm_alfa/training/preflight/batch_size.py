"""--batch-size auto: the largest batch that memory allows, found with accelerate's own helper."""

import dataclasses

import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size

from timm_alfa.data.config import DataConfig
from timm_alfa.errors import ConfigError
from timm_alfa.options import default_of
from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.tasks.base import MethodTask
from timm_alfa.training.preflight.trial_step import random_batch
from timm_alfa.utils.distributed import gather
from timm_alfa.utils.rng import preserve_rng

FIRST = default_of(next(field for field in dataclasses.fields(DataConfig) if field.name == 'batch_size'))
RESERVED = 4  # tensors of a weight's size besides its gradient: two of an optimizer, an EMA, what DDP communicates


def find_batch_size(task: MethodTask, accelerator: Accelerator, input_size, num_classes: int, soft: bool) -> int:
    """The default batch size, or the largest one that accelerate's helper finds below it; the same on all processes.

    Whole steps are tried on random images, with memory set aside for what an optimizer keeps. They leave no trace.

    Args:
        input_size: (C, H, W).
        soft: Whether targets are soft.

    Raises:
        ConfigError: Not a single image fits.
    """
    statistics, training = RunningStatistics(task), task.training
    reserved: list[torch.Tensor] = []

    @find_executable_batch_size(starting_batch_size=FIRST)
    def fits(batch_size: int) -> int:
        task.zero_grad(set_to_none=True)
        with task.trial(), accelerator.autocast():
            loss = task(*random_batch(batch_size, input_size, num_classes, soft, accelerator.device))['loss']
        loss.backward()
        return batch_size

    try:
        reserved += [torch.empty_like(p) for p in task.parameters() if p.requires_grad for _ in range(RESERVED)]
        with preserve_rng(accelerator.device):
            task.train()
            found = fits()
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and 'No executable batch size' not in str(error):
            raise
        raise ConfigError('--batch-size auto: memory does not suffice for one image: use a smaller --model.') from error
    finally:
        task.zero_grad(set_to_none=True)
        statistics.restore()
        task.train(training)
        reserved.clear()
    return min(gather(accelerator, [found]))
