"""state.json: what it holds, and the check that it holds nothing else. The state may come from somebody else."""

import dataclasses
import re
import typing
from dataclasses import dataclass
from typing import Any, Iterator, Optional

from timm_alfa.options import core_type, hints, is_optional
from timm_alfa.training.checkpoint.train_state import TrainState

MAX_COUNT = 1 << 53
# A key of a mapping becomes a column of summary.csv: it must not begin a formula.
KEY = re.compile(r'\w[\w.:/ \[\]()-]*')


@dataclass(frozen=True)
class StateFile:
    """The entries of state.json.

    Attributes:
        progression: The fields of `TrainState`.
        options: The flat options of the run.
        num_processes: How many processes saved it.
        skipped: Indices of corrupt images, by part of the dataset.
        scaler: State of the gradient scaler.
        mixed_precision: As accelerate names it; not in states from before it was kept.
        loader: What --loader auto was resolved to; likewise.
    """

    progression: TrainState
    options: dict[str, Any]
    num_processes: int
    skipped: dict[str, list[int]]
    scaler: Optional[dict[str, float]]
    mixed_precision: Optional[str] = None
    loader: Optional[str] = None


@dataclass(frozen=True)
class ComparedOptions:
    """Options that are used before a run compares them with its own."""

    batch_size: int
    grad_accum_steps: int
    epochs: int
    opt: str
    loader: str


def content_errors(content: Any) -> Iterator[str]:
    """A line for each entry of a state.json that is missing, unknown or of another type."""
    if not isinstance(content, dict):
        yield 'it is not a mapping'
        return
    found = list(_field_errors(content, StateFile))
    if found:
        yield from found
        return

    # what types do not say
    options = {key: value for key, value in content['options'].items() if key in hints(ComparedOptions)}
    yield from _field_errors(options, ComparedOptions, 'options.')
    yield from history_errors(content['progression'].get('continued', []), 'progression.continued')
    for name in content['skipped'].keys() - {'train', 'val', 'test'}:
        yield f'skipped has the key {name!r}, which is not a part of a dataset'
    positive = {'num_processes': content['num_processes']}
    positive.update({f'options.{key}': options.get(key) for key in ('batch_size', 'grad_accum_steps', 'epochs')})
    for name, value in positive.items():
        if value == 0:
            yield f'{name} is 0'


def history_errors(value: Any, name: str) -> Iterator[str]:
    """A line for each error in the list of commands that resumed a run with other options."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        yield f'{name} is {_shown(value)}: expected a list of mappings'
        return
    for each in value:
        if 'epoch' not in each:
            yield f'{name}.epoch is missing'
        else:
            yield from _value_errors(each['epoch'], int, f'{name}.epoch')


def _field_errors(content: dict[str, Any], cls: type, prefix: str = '') -> Iterator[str]:
    """Errors of a mapping whose keys are the fields of a dataclass."""
    annotations = hints(cls)
    for field in dataclasses.fields(cls):
        name = f'{prefix}{field.name}'
        if field.name in content:
            yield from _value_errors(content[field.name], annotations[field.name], name)
        elif field.default is field.default_factory is dataclasses.MISSING:
            yield f'{name} is missing'
    for key in content.keys() - annotations.keys():
        yield f'{prefix.rstrip(".") or "it"} has {key!r}, which this version does not know'


def _value_errors(value: Any, annotation: Any, name: str) -> Iterator[str]:
    """Errors of a value that an annotation describes."""
    if annotation is Any or (value is None and is_optional(annotation)):
        return
    kind = core_type(annotation)
    outer = typing.get_origin(kind) or kind
    has_fields = dataclasses.is_dataclass(kind)
    if has_fields:
        outer = dict
    title, fits = _KINDS[outer]
    if not fits(value):
        yield f'{name} is {_shown(value)}: expected {title}'
    elif has_fields:
        yield from _field_errors(value, kind, f'{name}.')
    elif outer is list:
        for each in value:
            yield from _value_errors(each, typing.get_args(kind)[0], name)
    elif outer is dict:
        for key, each in value.items():
            if not KEY.fullmatch(key):
                yield f'{name} has the key {_shown(key)}'
            yield from _value_errors(each, typing.get_args(kind)[1], f'{name}.{key}')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_KINDS = {
    int: ('a count', lambda value: type(value) is int and 0 <= value < MAX_COUNT),
    float: ('a number', _is_number),
    str: ('text', lambda value: isinstance(value, str)),
    list: ('a list', lambda value: isinstance(value, list)),
    dict: ('a mapping', lambda value: isinstance(value, dict)),
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
