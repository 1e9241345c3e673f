"""What a task minimizes: how the model is called, and the loss of its output."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

import torch
from torch import nn

from timm_alfa.errors import ConfigError


@dataclass(frozen=True)
class Objective:
    """How a model is called on a batch, and the loss of what it returns.

    Attributes:
        call: `call(model, *batch)` returns the model's output.
        loss: `loss(output, *batch)` returns a scalar.
        modules: What the loss computes with, such as a criterion that learns.
    """

    call: Callable[..., Any]
    loss: Callable[..., torch.Tensor]
    modules: tuple[nn.Module, ...] = ()


def classifier_objective(criterion: Callable) -> Objective:
    """The objective of a classifier, whose batches are images and targets.

    Args:
        criterion: Loss of logits and targets.
    """
    modules = (criterion,) if isinstance(criterion, nn.Module) else ()
    return Objective(call_classifier, partial(classification_loss, criterion), modules)


def call_classifier(model: Callable, input: torch.Tensor, target: torch.Tensor) -> Any:
    """Calls a model on images alone."""
    return model(input)


def classification_loss(criterion: Callable, output: Any, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The criterion of a classifier's output and the targets.

    Raises:
        ConfigError: The output is not a single tensor.
    """
    if not isinstance(output, torch.Tensor):
        raise ConfigError(
            f'the model returns a {type(output).__name__} and not its logits: build it as a classifier (not '
            'features_only); of a distilled one call set_distilled_training(False).'
        )
    return criterion(output, target)
