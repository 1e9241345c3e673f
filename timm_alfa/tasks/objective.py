"""What a task minimizes: how the model is called, and the loss of its output."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional

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
    loss = partial(classification_loss, criterion)
    return Objective(call_classifier, loss, modules_of(criterion), ('input', 'target'))


def general_objective(call: Optional[Callable], loss: Callable) -> Objective:
    """The objective of any model.

    Args:
        call: `call(model, *batch)`; None: the model is called on the first part of a batch alone.
        loss: `loss(output, *batch)`.
    """
    return Objective(call or call_on_first, partial(checked_loss, loss), modules_of(loss))


def objective_of_call(call: Callable, criterion: Optional[Callable]) -> Objective:
    """The objective of a model whose call says what the loss is.

    Args:
        call: `call(model, *batch)` returns the logits, or something that has `.logits`.
        criterion: Loss of the logits and the last part of a batch; None: the call returns the loss, a scalar or
            something that has `.loss`.
    """
    if criterion is None:
        return Objective(call, partial(checked_loss, loss_in_output))
    return Objective(call, partial(checked_loss, partial(loss_of_logits, criterion)), modules_of(criterion))


def modules_of(function: Any) -> tuple[nn.Module, ...]:
    """The modules that a function computes with, as far as can be seen: itself, or the one that it is a method of."""
    modules = (function, getattr(function, '__self__', None))
    return tuple(module for module in modules if isinstance(module, nn.Module))


# How a model is called


def call_classifier(model: Callable, input: torch.Tensor, target: torch.Tensor) -> Any:
    """The logits of images; of what Hugging Face's models return, `.logits`."""
    return logits_of(model(input))


def call_on_first(model: Callable, *batch) -> Any:
    """Calls a model on the first part of a batch alone."""
    return model(batch[0])


# The loss of what it returns


def classification_loss(criterion: Callable, output: Any, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The criterion of a classifier's output and the targets.

    Raises:
        ConfigError: The output is not a single tensor.
    """
    if not isinstance(output, torch.Tensor):
        raise ConfigError(
            f'the model returns a {type(output).__name__} and not its logits: build it as a classifier (not '
            'features_only); of a distilled one call set_distilled_training(False). For any other model pass '
            'loss=, a function of (output, *batch).'
        )
    return criterion(output, target)


def loss_of_logits(criterion: Callable, output: Any, *batch) -> torch.Tensor:
    """The criterion of the logits in an output, and the last part of a batch."""
    logits = logits_of(output)
    if not isinstance(logits, torch.Tensor):
        raise ConfigError(
            f'call returns a {type(output).__name__}, in which the criterion finds no logits: return them, or pass '
            'loss=, a function of (output, *batch).'
        )
    return criterion(logits, batch[-1])


def loss_in_output(output: Any, *batch) -> torch.Tensor:
    """The loss that a model has computed itself."""
    loss = getattr(output, 'loss', None)
    is_loss = isinstance(output, torch.Tensor) and output.numel() == 1
    if loss is None and not is_loss:
        raise ConfigError(
            f'call returns {_describe(output)} without a loss, and nothing says what is minimized: pass loss=, a '
            'function of (output, *batch), or a criterion of the logits and the last part of the batch.'
        )
    return output if loss is None else loss


def checked_loss(loss: Callable, output: Any, *batch) -> torch.Tensor:
    """A loss of any output.

    Raises:
        ConfigError: It is not a scalar tensor.
    """
    value = loss(output, *batch)
    is_scalar = isinstance(value, torch.Tensor) and value.numel() == 1 and value.is_floating_point()
    if not is_scalar:
        raise ConfigError(f'the loss is {_describe(value)}: it has to be one number, a scalar floating-point tensor.')
    return value


def _describe(value: Any) -> str:
    is_tensor = isinstance(value, torch.Tensor)
    return f'a tensor of shape {list(value.shape)}' if is_tensor else f'a {type(value).__name__}'


def logits_of(output: Any) -> Any:
    """The logits in what a model returns: its `.logits`, if it has any; else the output as it is."""
    logits = None if isinstance(output, torch.Tensor) else getattr(output, 'logits', None)
    return output if logits is None else logits
