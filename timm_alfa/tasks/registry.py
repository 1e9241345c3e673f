"""The table of methods, and how a task is created from it."""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

import torch
import torch.nn as nn

from timm_alfa.errors import ConfigError, one_of
from timm_alfa.options import build
from timm_alfa.tasks.base import MethodTask


@dataclass(frozen=True)
class TaskRow:
    """A method.

    Attributes:
        name: As in `--task` and `create_task`.
        task: Its `timm.task.TrainingTask`.
        config: Dataclass of its options.
        prefix: Prefix of its options on the command line.
        summary: One line for a table.
        title: Its name in a model card.
        text: For a model card, how the model was trained, in a sentence or two.
    """

    name: str
    task: type
    config: type
    prefix: str
    summary: str
    title: str
    text: str


TASKS: dict[str, TaskRow] = {}


def register_task(row: TaskRow) -> None:
    """Adds a method to those that `create_task` knows."""
    TASKS[row.name] = row


def list_tasks() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(TASKS)


def create_task(
    name: str,
    model: nn.Module,
    criterion: Optional[Union[nn.Module, Callable]] = None,
    device: Optional[torch.device] = None,
    *,
    criterion_kwargs: Optional[dict[str, Any]] = None,
    verbose: bool = False,
    **config,
) -> MethodTask:
    """Creates a training task of timm that trains a model by one of the methods.

    Args:
        name: One of `list_tasks()`.
        model: Any classifier. Its weights are trained in place, its modules and keys stay as they are.
        criterion: Loss of logits and targets; None: timm's default, cross-entropy. One with parameters has to be an
            `nn.Module`: the parameters of a function get no gradient from most blocks.
        device: Of the task's own tensors; None: the model's.
        criterion_kwargs: For `timm.loss.create_classification_loss` when there is no criterion.
        verbose: Whether timm logs what it creates.
        config: The method's options, by name.

    Returns:
        A `timm.task.TrainingTask`: `task(input, target)` returns a dict with at least 'loss' and 'output'.

    Raises:
        ConfigError: An unknown task, or wrong options, all of them in one message.
        BlockError: A block spec that names nothing in this model.
    """
    if name not in TASKS:
        raise ConfigError(one_of('task', name, list_tasks()))
    row = TASKS[name]
    options = build(row.config, config)
    device = device if device is not None else next((p.device for p in model.parameters()), torch.device('cpu'))
    return row.task(
        model,
        criterion,
        config=options,
        criterion_kwargs=criterion_kwargs,
        device=torch.device(device),
        verbose=verbose,
    )
