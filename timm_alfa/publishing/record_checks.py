"""What a run's files may hold before anything of them is published: known types, and no secrets."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, Union

from timm_alfa.errors import CheckpointError
from timm_alfa.training.run_dir.finished import FinishedRun, read_run
from timm_alfa.utils.paths import hide_paths
from timm_alfa.utils.program import PRECISIONS
from timm_alfa.utils.redact import redact


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_precision(value: Any) -> bool:
    return value in PRECISIONS


def is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_count(each) and each > 0 for each in value)


class Kind(NamedTuple):
    """A type in words, its test, and the keys that have it."""

    title: str
    fits: Callable[[Any], bool]
    keys: tuple[str, ...]


_RECORD = (
    Kind('text', is_text, ('experiment', 'model', 'task', 'dataset', 'val_split', 'test_split', 'device', 'commit')),
    Kind(
        'a count',
        is_count,
        (
            'num_classes',
            'epochs',
            'epochs_done',
            'best_epoch',
            'batch_size',
            'train_images',
            'val_images',
            'test_images',
            'test_reads',
            'params',
            'num_processes',
        ),
    ),
    Kind('a number', is_number, ('seed', 'lr', 'seconds', 'images_per_second', 'robust_top1')),
    Kind(f'one of {", ".join(PRECISIONS)}', is_precision, ('mixed_precision',)),
    Kind('a list of text', is_list_of_text, ('command', 'blocks')),
    Kind('a list of numbers', is_list_of_numbers, ('eta',)),
    Kind('a mapping', is_mapping, ('task_options', 'versions')),
)
_CONTINUED = (
    Kind('a count', is_count, ('epoch',)),
    Kind('a list of text', is_list_of_text, ('command',)),
    Kind(f'one of {", ".join(PRECISIONS)}', is_precision, ('mixed_precision', 'before')),
)
_CONFIG = (
    Kind('text', is_text, ('architecture',)),
    Kind('a count', is_count, ('num_classes',)),
    Kind('a mapping', is_mapping, ('pretrained_cfg',)),
)
_PRETRAINED_CFG = (Kind('channels, height and width', is_size, ('input_size',)),)


def read_public_run(folder: Union[str, Path]) -> FinishedRun:
    """Read a run folder whose files are to be published or quoted: known types, and secrets redacted once more.

    Raises:
        CheckpointError: As `read_run` does, or a value is of another type than train.py writes.
    """
    run = read_run(folder)
    check_types(run)
    return redacted(run)


def check_types(run: FinishedRun) -> None:
    """Check the types of what a card, a file name or a command is made from.

    Raises:
        CheckpointError: All values of other types, in one line.
    """
    found = [f'result.json: {error}' for error in _record_errors(run.record)]
    found += [f'config.json: {error}' for error in _config_errors(run.config)]
    if found:
        raise CheckpointError(
            f"'{run.folder}' cannot be published, its files hold what training does not write: {'; '.join(found)}."
        )


def redacted(run: FinishedRun) -> FinishedRun:
    """A run without secrets in its record, options and config."""
    found = run.evaluation
    evaluation = dataclasses.replace(
        found, split=redact(found.split), chosen_on=redact(found.chosen_on), attack=redact(found.attack)
    )
    return dataclasses.replace(
        run,
        record=redact(run.record),
        args=redact(run.args),
        config=redact(run.config),
        evaluation=evaluation,
    )


def without_paths(run: FinishedRun) -> FinishedRun:
    """A run whose record and options do not say where files were on the machines that it ran on.

    It is for what is published only: its data cannot be found by it.
    """
    record = {key: value for key, value in run.record.items() if key != 'run'}
    return dataclasses.replace(run, record=hide_paths(record), args=hide_paths(run.args))


def _record_errors(record: dict[str, Any]) -> Iterator[str]:
    yield from _type_errors(record, _RECORD)
    continued = record.get('continued') or []
    if not isinstance(continued, list) or not all(map(is_mapping, continued)):
        yield 'continued is not a list of mappings'
        return
    for each in continued:
        yield from _type_errors(each, _CONTINUED, 'continued.', required=True)


def _config_errors(config: dict[str, Any]) -> Iterator[str]:
    yield from _type_errors(config, _CONFIG, required=True)
    if isinstance(config['pretrained_cfg'], dict):
        yield from _type_errors(config['pretrained_cfg'], _PRETRAINED_CFG, 'pretrained_cfg.')


def _type_errors(
    values: dict[str, Any], kinds: tuple[Kind, ...], prefix: str = '', required: bool = False
) -> Iterator[str]:
    for kind in kinds:
        for key in kind.keys:
            value = values.get(key)
            if (value is not None or required) and not kind.fits(value):
                yield f'{prefix}{key} is {_shown(value)}, expected {kind.title}'


def _shown(value: Any) -> str:
    text = redact(repr(value))
    return text if len(text) <= 80 else f'{text[:77]}...'
