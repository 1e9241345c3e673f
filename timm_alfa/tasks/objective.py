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
        names: What the parts of a batch are called, where they may be passed by name.
    """

    call: Callable[..., Any]
    loss: Callable[..., torch.Tensor]
    modules: tuple[nn.Module, ...] = ()
    names: tuple[str, ...] = ()

    def bind(self, batch: tuple, named: dict[str, Any]) -> tuple:
        """The batch in order, from positional parts and named ones.

        Raises:
            TypeError: A name is unknown, missing or passed twice.
        """
        if not named:
            return batch
        expected = self.names[len(batch) :]
        if set(named) != set(expected):
            what = ', '.join(self.names) or 'positional arguments only'
            raise TypeError(f'a task takes {what}: got {len(batch)} positional and {", ".join(sorted(named))}.')
        return (*batch, *(named[name] for name in expected))


def classifier_objective(criterion: Callable) -> Objective:
    """The objective of a classifier, whose batches are images and targets.

    Args:
        criterion: Loss of logits and targets.
    """
    modules = (criterion,) if isinstance(criterion, nn.Module) else ()
    return Objective(call_classifier, partial(classification_loss, criterion), modules, ('input', 'target'))


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
