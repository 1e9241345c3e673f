"""One step, tried before anything is written: what a model or a method cannot do shows here, not hours later."""

import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.errors import AlfaError, ConfigError, first_line
from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.tasks.base import MethodTask


def try_step(task: MethodTask, accelerator: Accelerator, input_size, num_classes: int, soft: bool) -> None:
    """Runs the task on two random images, and leaves no trace of it.

    A method may also learn in its first step what the model is like. Because it learns it here, a resumed run computes
    the same as one that was never interrupted.

    Args:
        input_size: (C, H, W).
        soft: Whether targets are soft.

    Raises:
        ConfigError: The model or the method fails on such input.
    """
    statistics, training = RunningStatistics(task), task.training
    target = torch.arange(2, device=accelerator.device) % num_classes
    if soft:
        target = nn.functional.one_hot(target, num_classes).float()
    input = torch.randn(2, *input_size, device=accelerator.device)
    try:
        task.train()
        with task.trial(), accelerator.autocast():
            task(input, target)
    except AlfaError:
        raise
    except Exception as error:  # whatever a model raises on input it was not made for
        size = 'x'.join(map(str, input_size))
        raise ConfigError(
            f'a trial step on input {size} failed: {type(error).__name__}: {first_line(error)}. Choose another '
            '--img-size, --model or task.'
        ) from error
    finally:
        statistics.restore()
        task.train(training)
