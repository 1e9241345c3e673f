"""The command line of train.py: the groups of `config`, and every task's own options."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from timm_alfa.errors import AlfaWarning, ConfigError, one_of
from timm_alfa.options import default_of, long_flag, resolve
from timm_alfa.tasks import TASKS
from timm_alfa.training.options.checks import errors_across, errors_in_timm, without_effect
from timm_alfa.training.options.config import (
    DIGITS_DEFAULTS,
    DIGITS_UNLESS,
    GROUPS,
    TrainConfig,
    means_digits,
    task_key,
)
from timm_alfa.training.options.outside import (
    NOT_RESUMED,
    command_line_only_errors,
    dropped_on_resume,
    external_options,
)
from timm_alfa.training.options.parser import (
    Given,
    Option,
    build_parser,
    group_options,
    options_of_groups,
    read_command_line,
    read_yaml,
    resolve_groups,
)
from timm_alfa.utils.console import logger
from timm_alfa.utils.program import PRECISIONS

DESCRIPTION = (
    'Trains any timm model with ALFA, L-ALFA or one of the methods they are compared with. Without options, it trains '
    'resnet20s with ALFA on the embedded digits, in less than a minute on two CPU cores. Boolean options have a --no- '
    'form. Numbers may be fractions such as 0.5/255. The embedded digits have their own defaults: '
    + ', '.join(f'{long_flag(key)} {value}' for key, value in DIGITS_DEFAULTS.items())
    + '.'
)
# Options of one start of train.py, and not of the run that it begins or resumes.
OF_ONE_START = ('resume', 'resume_anyway', 'dry_run', 'probe')
# Options that --resume RUN does not take over from the run.
NOT_FROM_RUN = ('output', 'experiment', *OF_ONE_START)
TITLES = {
    'model': 'Model',
    'input': 'Input of the model',
    'data': 'Dataset and loader',
    'aug': 'Augmentation and regularization',
    'task': 'Task',
    'optim': 'Loss and optimizer',
    'schedule': 'Learning rate schedule',
    'ema': 'Exponential moving average of the weights',
    'selection': 'Choosing the best checkpoint',
    'run': 'Run',
}


def prefixes() -> dict[str, list[Any]]:
    """The rows of tasks by flag prefix; tasks with the same prefix share its flags."""
    rows: dict[str, list[Any]] = {}
    for row in TASKS.values():
        if row.prefix:
            rows.setdefault(row.prefix, []).append(row)
    return rows


def task_options() -> list[Option]:
    """A flag for every option of every task."""
    options = []
    for prefix, rows in prefixes().items():
        options += _shared_options(prefix, rows)
    return options


def _shared_options(prefix: str, rows: list[Any]) -> list[Option]:
    """The flags of the tasks that share a prefix; a default that differs between them is noted."""
    seen: dict[str, Option] = {}
    for row in rows:
        for item in group_options(f'task {prefix}', row.config):
            first = seen.setdefault(item.key, item._replace(key=task_key(prefix, item.key)))
            if default_of(item.field) != default_of(first.field):
                seen[item.key] = first._replace(note=f'; --task {row.name}: {default_of(item.field)}')
    return list(seen.values())


def all_options() -> list[Option]:
    """Every flag of train.py."""
    return options_of_groups(GROUPS) + task_options()


def make_parser():
    """The parser of train.py."""
    titles = dict(TITLES)
    for prefix, rows in prefixes().items():
        titles[f'task {prefix}'] = 'Options of ' + ' and '.join(f'--task {row.name}' for row in rows)
    return build_parser('train', DESCRIPTION, titles, all_options())


def parse_args(argv: Optional[Sequence[str]] = None) -> TrainConfig:
    """The resolved options of a run.

    Raises:
        ConfigError: With all errors; nothing has been done yet.
    """
    # from the command line, files and defaults
    options = all_options()
    given, errors = read_command_line(make_parser(), argv, options)
    misspelled = bool(errors)
    if command_line_only := list(command_line_only_errors(given)):
        raise ConfigError(errors + command_line_only)
    left_out, found = fill_from_run(given, options)
    errors += found
    fill_for_digits(given)
    config, found = resolve_config(given)
    errors += found
    if config is not None and not misspelled:
        errors += errors_in_timm(config, given.flag_name)
    if errors or config is None:
        raise ConfigError(errors)

    # what the user should know before anything happens
    for line in (*external_options(given, options), *left_out):
        logger.info(line)
    for line in without_effect(config, given.flag_name):
        warnings.warn(line, AlfaWarning, stacklevel=2)
    return config if argv is None else dataclasses.replace(config, words=tuple(argv))


def fill_from_run(given: Given, options: Sequence[Option]) -> tuple[list[str], list[str]]:
    """With `--resume RUN`, takes options that are not given from the run's args.yaml.

    Returns:
        A line for each option that is left out, and the errors of the file.
    """
    run = given.values.get('resume')
    file = Path(str(run)) / 'args.yaml'
    if run in (None, 'auto') or not file.is_file():
        return [], []
    content, errors = read_yaml(str(file), options, '--resume')
    left_out = list(dropped_on_resume(str(file), content, given, options))
    for key, value in content.items():
        if key not in (*given.values, *NOT_FROM_RUN, *NOT_RESUMED):
            given.inherit(key, value, str(file))
    return left_out, errors


def fill_for_digits(given: Given) -> None:
    """Sets the defaults of the embedded digits, if they are the dataset, for options that are not given."""
    if not means_digits(given.values.get('dataset'), given.values.get('data_dir')):
        return
    for key, value in DIGITS_DEFAULTS.items():
        contradicted = given.values.keys() & DIGITS_UNLESS.get(key, set())
        if key not in given.values and not contradicted:
            given.inherit(key, value, 'the defaults for the embedded digits')


def resolve_config(given: Given) -> tuple[Optional[TrainConfig], list[str]]:
    """All groups and the chosen task's options, with the errors of each and between them."""
    groups, errors = resolve_groups(GROUPS, given)
    errors += precision_errors(given.environment)

    # the task and its own options
    name = groups['task'].task if groups['task'] else None
    row = TASKS.get(name) if name is not None else None
    options = None
    if name is not None and row is None:
        errors.append(one_of('task', name, list(TASKS)))
    elif row is not None:
        errors += foreign_options(row, given)
        options, found = own_options(row, given)
        errors += found
    if None in groups.values() or row is None or options is None:
        return None, errors

    # what needs more than one group
    config = TrainConfig(
        **groups,
        task_options=options,
        task_prefix=row.prefix,
        given=frozenset(given.values.keys() - given.inherited),
        recipe_precision=recipe_precision(given.environment),
    )
    errors += errors_across(config, given.flag_name)
    return config, errors


def recipe_precision(environment: dict[str, Any]) -> Optional[str]:
    """The mixed precision that the environment of a YAML file names; YAML reads a bare no as False."""
    precision = environment.get('mixed_precision')
    return 'no' if precision is False else precision


def precision_errors(environment: dict[str, Any]) -> Iterator[str]:
    """A line if the environment of a YAML file names a mixed precision that accelerate does not have."""
    precision = recipe_precision(environment)
    if precision is not None and precision not in PRECISIONS:
        known = ', '.join(PRECISIONS)
        yield f"'mixed_precision' in the environment of --config is {precision!r}: it must be one of {known}."


def own_options(row: Any, given: Given) -> tuple[Optional[Any], list[str]]:
    """The chosen task's options (None if one of them is invalid), and their errors."""
    values = {}
    for field in dataclasses.fields(row.config) if row.prefix else ():
        key = task_key(row.prefix, field.name)
        if key in given.values:
            values[field.name] = given.values[key]
    return resolve(row.config, values, lambda name: given.flag_name(task_key(row.prefix, name)))


def foreign_options(row: Any, given: Given) -> Iterator[str]:
    """A line for each option given that belongs to other tasks than the chosen one."""
    for key, tasks in _owners().items():
        if key in given.values and key not in given.inherited and row.name not in tasks:
            choice = ' or '.join(f'--task {task}' for task in tasks)
            yield f"{given.flag_name(key)} is an option of {choice}; the task here is '{row.name}'."


def _owners() -> dict[str, list[str]]:
    """The tasks that have an option, by its key."""
    owners: dict[str, list[str]] = {}
    for row in TASKS.values():
        for field in dataclasses.fields(row.config) if row.prefix else ():
            owners.setdefault(task_key(row.prefix, field.name), []).append(row.name)
    return owners
