"""train.py's command line: the groups of `config` and every task's own options."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from timm_alfa.errors import AlfaWarning, ConfigError, one_of
from timm_alfa.options import default_of, resolve
from timm_alfa.tasks import TASKS
from timm_alfa.training.options.checks import errors_across, without_effect
from timm_alfa.training.options.config import (
    DIGITS_DEFAULTS,
    DIGITS_UNLESS,
    GROUPS,
    TrainConfig,
    means_digits,
    task_key,
)
from timm_alfa.training.options.parser import (
    Given,
    Option,
    build_parser,
    group_options,
    read_command_line,
    read_yaml,
    resolve_groups,
)

DESCRIPTION = (
    'Trains any timm model with ALFA, L-ALFA, or one of the methods they are compared with. Without options: '
    'resnet20s with ALFA on the embedded digits, under a minute on two cores. Boolean options have a --no- form; '
    'numbers may be fractions such as 0.5/255. Defaults are in parentheses; the embedded digits have some of '
    'their own: ' + ', '.join(f'--{key.replace("_", "-")} {value}' for key, value in DIGITS_DEFAULTS.items()) + '.'
)
# What belongs to a start of train.py and not to the run it goes on with.
OF_ONE_START = ('resume', 'resume_anyway', 'dry_run')  # they say how a run is entered, not what it is
NOT_FROM_RUN = ('output', 'experiment', *OF_ONE_START)
TITLES = {
    'model': 'Model',
    'data': 'Data',
    'aug': 'Augmentation and regularisation',
    'task': 'Task',
    'optim': 'Loss and optimizer',
    'schedule': 'Schedule',
    'ema': 'Moving average of the weights',
    'run': 'Run',
}


def prefixes() -> dict[str, list[Any]]:
    """The rows of tasks by flag prefix; tasks that share one share its flags."""
    rows: dict[str, list[Any]] = {}
    for row in TASKS.values():
        if row.prefix:
            rows.setdefault(row.prefix, []).append(row)
    return rows


def task_options() -> list[Option]:
    """A flag for every option of every task."""
    options = []
    for prefix, rows in prefixes().items():
        seen = {}
        for row in rows:
            for item in group_options(f'task {prefix}', row.config):
                first = seen.setdefault(item.key, item._replace(key=task_key(prefix, item.key)))
                if default_of(item.field) != default_of(first.field):
                    seen[item.key] = first._replace(note=f'; --task {row.name}: {default_of(item.field)}')
        options += seen.values()
    return options


def all_options() -> list[Option]:
    """Every flag of train.py."""
    return [item for name, cls in GROUPS.items() for item in group_options(name, cls)] + task_options()


def make_parser():
    """train.py's parser."""
    titles = dict(TITLES)
    for prefix, rows in prefixes().items():
        titles[f'task {prefix}'] = 'Options of ' + ' and '.join(f'--task {row.name}' for row in rows)
    return build_parser('train.py', DESCRIPTION, titles, all_options())


def parse_args(argv: Optional[Sequence[str]] = None) -> TrainConfig:
    """The resolved options of a run.

    Raises:
        ConfigError: With every fault; nothing has been done yet.
    """
    given, errors = read_command_line(make_parser(), argv, all_options())
    errors += fill_from_run(given)
    fill_for_digits(given)
    config, found = resolve_config(given)
    errors += found
    if errors:
        raise ConfigError(errors)
    for line in without_effect(config, given.flag_name):
        warnings.warn(line, AlfaWarning, stacklevel=2)
    return config


def fill_from_run(given: Given) -> list[str]:
    """With `--resume RUN`, options that are not given are those of the run; its errors."""
    run = given.values.get('resume')
    file = Path(str(run)) / 'args.yaml'
    if run in (None, 'auto') or not file.is_file():
        return []
    content, errors = read_yaml(str(file), all_options(), '--resume')
    for key, value in content.items():
        if key not in given.values and key not in NOT_FROM_RUN:
            given.values[key], given.source[key] = value, str(file)
            given.inherited.add(key)
    return errors


def fill_for_digits(given: Given) -> None:
    """Defaults that depend on the data: those of the embedded digits, where nothing else is given."""
    if means_digits(given.values.get('dataset'), given.values.get('data_dir')):
        for key, value in DIGITS_DEFAULTS.items():
            if key not in given.values and not given.values.keys() & DIGITS_UNLESS.get(key, set()):
                given.values[key], given.source[key] = value, 'the defaults for the embedded digits'
                given.inherited.add(key)


def resolve_config(given: Given) -> tuple[Optional[TrainConfig], list[str]]:
    """All groups and the chosen task's options, with the errors of each and between them."""
    groups, errors = resolve_groups(GROUPS, given)
    name = groups['task'].task if groups['task'] else None
    row = TASKS.get(name)
    options = None
    if name is not None and row is None:
        errors.append(one_of('task', name, list(TASKS)))
    elif row is not None:
        errors += foreign_options(row, given)
        options, found = own_options(row, given)
        errors += found
    if None in groups.values() or options is None:
        return None, errors
    config = TrainConfig(
        **groups,
        task_options=options,
        task_prefix=row.prefix,
        given=frozenset(given.values.keys() - given.inherited),
        recipe_precision=recipe_precision(given.environment),
    )
    return config, errors + list(errors_across(config, given.flag_name))


def recipe_precision(environment: dict[str, Any]) -> Optional[str]:
    """The mixed precision that a YAML's environment names; YAML reads a bare no as False."""
    precision = environment.get('mixed_precision')
    return 'no' if precision is False else precision


def own_options(row: Any, given: Given) -> tuple[Optional[Any], list[str]]:
    """The chosen task's options."""
    names = [field.name for field in dataclasses.fields(row.config)]
    keys = {name: task_key(row.prefix, name) for name in names if row.prefix}
    values = {name: given.values[key] for name, key in keys.items() if key in given.values}
    return resolve(row.config, values, lambda name: given.flag_name(task_key(row.prefix, name)))


def foreign_options(row: Any, given: Given) -> Iterator[str]:
    """A line for each option given that belongs to other tasks than the chosen one."""
    owners: dict[str, list[str]] = {}
    for other in TASKS.values():
        for field in dataclasses.fields(other.config) if other.prefix else ():
            owners.setdefault(task_key(other.prefix, field.name), []).append(other.name)
    for key, tasks in owners.items():
        if key in given.values and key not in given.inherited and row.name not in tasks:
            choice = ' or '.join(f'--task {task}' for task in tasks)
            yield f"{given.flag_name(key)} is an option of {choice}; the task here is '{row.name}'."
