"""One step, tried before anything is written: what a model or a method cannot do shows here, not hours later."""

import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.errors import AlfaError, ConfigError, first_line
from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.tasks.base import MethodTask


def try_step(
    task: MethodTask, accelerator: Accelerator, input_size, num_classes: int, soft: bool, images: int = 2
) -> None:
    """Runs the task on random images, and leaves no trace of it.

    A method may also learn in its first step what the model is like. Because it learns it here, a resumed run computes
    the same as one that was never interrupted.

    Args:
        input_size: (C, H, W).
        soft: Whether targets are soft.
        images: How many. If not two, those of a batch, for what a step on two did not show.

    Raises:
        ConfigError: The model or the method fails on such input.
    """
    statistics, training = RunningStatistics(task), task.training
    input, target = random_batch(images, input_size, num_classes, soft, accelerator.device)
    try:
        task.train()
        with task.trial(), accelerator.autocast():
            task(input, target)
    except AlfaError:
        raise
    except Exception as error:  # whatever a model raises on input it was not made for
        size = 'x'.join(map(str, input_size))
        what, advice = f'input {size}', 'Choose another --img-size, --model or task.'
        if images != 2:
            what, advice = f'a batch of size {images} on input {size}', 'Choose another --batch-size.'
        raise ConfigError(
            f'a trial step on {what} failed: {type(error).__name__}: {first_line(error)}. {advice}'
        ) from error
    finally:
        statistics.restore()
        task.train(training)


def random_batch(
    images: int, input_size, num_classes: int, soft: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and their targets.

    Args:
        input_size: (C, H, W).
        soft: Whether targets are soft.
    """
    target = torch.arange(images, device=device) % num_classes
    if soft:
        target = nn.functional.one_hot(target, num_classes).float()
    return torch.randn(images, *input_size, device=device), target
