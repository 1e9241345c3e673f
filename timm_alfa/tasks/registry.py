"""The table of methods, and how a task is created from it."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from timm_alfa.errors import ConfigError, one_of
from timm_alfa.options import build

if TYPE_CHECKING:
    import torch
    import torch.nn as nn

    from timm_alfa.tasks.base import MethodTask


@dataclass(frozen=True)
class TaskRow:
    """A method.

    Attributes:
        name: As in `--task` and `create_task`.
        task: Its `timm.task.TrainingTask`, or the place of that, 'module:class', to be imported when it is created.
        config: Dataclass of its options.
        prefix: Prefix of its options on the command line.
        summary: One line for a table.
        title: Its name in a model card.
        text: For a model card, how the model was trained, in a sentence or two.
    """

    name: str
    task: Union[type, str]
    config: type
    prefix: str
    summary: str
    title: str
    text: str

    @property
    def task_class(self) -> type:
        """Its `timm.task.TrainingTask`."""
        return resolve_name(self.task) if isinstance(self.task, str) else self.task


TASKS: dict[str, TaskRow] = {}


def register_task(row: TaskRow) -> None:
    """Adds a method to those that `create_task` knows."""
    TASKS[row.name] = row


def list_tasks() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(TASKS)


def create_task(
    name: str,
    model: 'nn.Module',
    criterion: Optional[Union['nn.Module', Callable]] = None,
    device: Optional['torch.device'] = None,
    *,
    call: Optional[Callable] = None,
    loss: Optional[Callable] = None,
    criterion_kwargs: Optional[dict[str, Any]] = None,
    verbose: bool = False,
    **config,
) -> 'MethodTask':
    """Creates a training task of timm that trains a model by one of the methods.

    A classifier needs neither `call` nor `loss`. Any other model says how it is called and what is minimized, and the
    task passes on to both whatever it is called with:

        task = create_task('alfa', unet, blocks='encoder.layer4', loss=lambda output, image, mask: dice(output, mask))
        result = task(image, mask)

    Args:
        name: One of `list_tasks()`.
        model: Any classifier; with `call` or `loss`, any model. Its weights are trained in place, its modules and keys
            stay as they are.
        criterion: Loss of logits and targets; None: timm's default, cross-entropy. One with parameters has to be an
            `nn.Module`: the parameters of a function get no gradient from most blocks.
        device: Of the task's own tensors; None: the model's.
        call: `call(model, *batch)` returns the model's output; None: the model is called on the first part of a batch.
            It has to call the model itself, which may be wrapped, once.
        loss: `loss(output, *batch)` returns a scalar and takes the place of the criterion. None: the criterion of the
            logits (an output, or its `.logits`) and the last part of a batch, or with `call` and without a criterion
            the loss that the model has computed (an output, or its `.loss`). As for the criterion, one with parameters
            has to be an `nn.Module`.
        criterion_kwargs: For `timm.loss.create_classification_loss` when there is no criterion.
        verbose: Whether timm logs what it creates.
        config: The method's options, by name.

    Returns:
        A `timm.task.TrainingTask`: `task(input, target)`, or `task(*batch)`, returns a dict with at least 'loss' and
        'output'.

    Raises:
        ConfigError: An unknown task, wrong options, all of them in one message, or a method that takes no `call` and
            no `loss`.
        BlockError: A block spec that names nothing in this model.
    """
    if name not in TASKS:
        raise ConfigError(one_of('task', name, list_tasks()))
    import torch

    row = TASKS[name]
    objective = _given_objective(row, criterion if criterion is not None else criterion_kwargs, call, loss)
    options = build(row.config, config)
    device = device if device is not None else next((p.device for p in model.parameters()), torch.device('cpu'))
    return row.task_class(
        model,
        criterion,
        config=options,
        **objective,
        criterion_kwargs=criterion_kwargs,
        device=torch.device(device),
        verbose=verbose,
    )


def _given_objective(
    row: TaskRow, criterion: Any, call: Optional[Callable], loss: Optional[Callable]
) -> dict[str, Callable]:
    """What a user says of the objective, if anything: `call`, `loss` or both.

    Raises:
        ConfigError: The method takes neither, one is not a function, or the loss comes with a criterion.
    """
    forms = {'call': 'call(model, *batch)', 'loss': 'loss(output, *batch)'}
    given = {name: value for name, value in (('call', call), ('loss', loss)) if value is not None}
    reason = getattr(row.task_class, 'only_classifiers', '')
    if given and reason:
        raise ConfigError(f"task '{row.name}' trains classifiers only and takes no {' and no '.join(given)}: {reason}.")
    for name, value in given.items():
        if not callable(value):
            raise ConfigError(f'{name} is {value!r}: pass a function, {forms[name]}.')
    if 'loss' in given and criterion:
        raise ConfigError(f'pass a criterion or loss, not both: {forms["loss"]} takes the place of the criterion.')
    return given
