"""From the command line and YAML to resolved groups of options: every fault in one message, before anything happens."""

import argparse
import ast
import dataclasses
import typing
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Sequence

import yaml

from timm_alfa.errors import ConfigError
from timm_alfa.options import core_type, default_of, hints, resolve

# What a flag means when it is given without a value.
GIVEN_ALONE = {'torchcompile': 'inductor'}
# Flags of timm's train.py that are spelled otherwise here, and what to type.
TIMM_FLAGS = {
    '--amp': '`accelerate launch --mixed_precision bf16` (or fp16) before the script',
    '--amp-dtype': '`accelerate launch --mixed_precision bf16` (or fp16) before the script',
    '--device': '`accelerate launch --cpu` or CUDA_VISIBLE_DEVICES',
    '--input-size': '--img-size and --in-chans',
    '--checkpoint-hist': '--keep',
    '--recovery-interval': '--checkpoint-every',
    '--log-wandb': '--log-with wandb',
}
# Where args.yaml keeps what is no option; a YAML given by --config may hold it.
ENVIRONMENT = 'environment'


class Option(NamedTuple):
    """One flag: its YAML key, where it belongs, and its field."""

    key: str
    group: str
    field: dataclasses.Field
    annotation: Any
    flag: Optional[str] = None
    note: str = ''

    @property
    def spelling(self) -> str:
        return self.flag or '--' + self.key.replace('_', '-')


class Given(NamedTuple):
    """What the user set: values by key, where each comes from ('' is the command line), and what a run passed on.

    `environment` is what --config says of what it ran on.
    """

    values: dict[str, Any]
    source: dict[str, str]
    inherited: set[str]
    environment: dict[str, Any]

    def flag_name(self, key: str) -> str:
        """A key as the user wrote it."""
        source = self.source.get(key, '')
        return f"'{key}' in {source}" if source else '--' + key.replace('_', '-')


def group_options(name: str, cls: type) -> list[Option]:
    """The options of a config class, in the order of its fields."""
    annotations = hints(cls)
    return [Option(field.name, name, field, annotations[field.name]) for field in dataclasses.fields(cls)]


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print a usage and exit."""

    def error(self, message: str):
        raise ConfigError(f'{message}. `{self.prog} --help` lists every option.')


class _Help(argparse.HelpFormatter):
    """Help in two wide columns."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=118)


def build_parser(prog: str, description: str, titles: Mapping[str, str], options: Sequence[Option]) -> _Parser:
    """A parser whose result holds only what was given, as text.

    Args:
        titles: Title of each group, in the order of the help.
        options: All flags; their `group` is a key of `titles`.
    """
    usage = f'{prog} [options]\n       accelerate launch {prog} [options]'
    parser = _Parser(
        prog=prog,
        description=description,
        usage=usage,
        formatter_class=_Help,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups = {name: parser.add_argument_group(title) for name, title in titles.items()}
    parser.add_argument('-c', '--config', metavar='FILE', help='YAML of options; the command line overrides it.')
    for item in options:
        _add(groups[item.group], item)
    return parser


def _add(group, item: Option) -> None:
    kind, meta = core_type(item.annotation), item.field.metadata
    names = [meta['flag']] if meta.get('flag') else []
    names.append(item.spelling)
    text = _help_text(item)
    if kind is bool:
        off = [] if item.key.startswith('no_') else ['--no-' + item.key.replace('_', '-')]
        group.add_argument(*names, dest=item.key, action='store_const', const=True, help=text)
        if off:
            group.add_argument(*off, dest=item.key, action='store_const', const=False, help=argparse.SUPPRESS)
        return
    arguments = dict(dest=item.key, metavar=_metavar(item, kind), help=text)
    if kind is dict or typing.get_origin(kind) is dict:
        arguments['nargs'] = '*'
    elif typing.get_origin(kind) is tuple:
        arguments['nargs'] = '+'
    elif item.key in GIVEN_ALONE:
        arguments.update(nargs='?', const=GIVEN_ALONE[item.key])
    group.add_argument(*names, **arguments)


def _metavar(item: Option, kind: Any) -> str:
    if item.field.metadata.get('choices'):
        return '{' + ','.join(map(str, item.field.metadata['choices'])) + '}'
    if typing.get_origin(kind) is tuple:
        return 'X'
    return {int: 'N', float: 'X', dict: 'K=V'}.get(kind, 'TEXT')


def _help_text(item: Option) -> str:
    default = default_of(item.field)
    shown: Any = default
    if default is None or default is False or default in ('', {}):
        shown = ''
    elif isinstance(default, float):
        shown = _number(default)
    if default is True:
        return f'{item.field.metadata["help"]} (on; --no-{item.key.replace("_", "-")})'.replace('%', '%%')
    return (item.field.metadata['help'] + (f' ({shown}{item.note})' if shown != '' else '')).replace('%', '%%')


def _number(value: float) -> str:
    """A number as one would type it: sizes of pixels and features are fractions of 255."""
    levels = round(value * 255)
    return f'{levels}/255' if 0 < levels <= 16 and abs(value * 255 - levels) < 1e-6 else f'{value:.6g}'


def read_command_line(
    parser: _Parser, argv: Optional[Sequence[str]], options: Sequence[Option]
) -> tuple[Given, list[str]]:
    """What the command line and the YAML it names set, and what neither should hold."""
    known, rest = parser.parse_known_args(argv)
    values, errors = vars(known), []
    errors += unknown_flags(rest, options, parser.prog)
    for item in options:
        if isinstance(default_of(item.field), dict) and item.key in values:
            values[item.key], found = parse_pairs(values[item.key], item.spelling)
            errors += found
    file = values.pop('config', None)
    given = Given(dict(values), dict.fromkeys(values, ''), set(), {})
    if file is not None:
        content, found = read_yaml(file, options, environment=given.environment)
        errors += found
        for key, value in content.items():
            if key not in values:
                given.values[key], given.source[key] = value, file
    return given, errors


def unknown_flags(rest: Sequence[str], options: Sequence[Option], prog: str) -> list[str]:
    """A line for each thing on the command line that is no option."""
    flags = [item.spelling for item in options] + ['--config', '--help']
    errors, skip = [], False
    for word in rest:
        if word.startswith('-') and not _is_number(word):
            name = word.split('=')[0]
            near = [flag for flag in flags if flag.startswith(name)] or get_close_matches(name, flags, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ''
            hint = f' Here it is {TIMM_FLAGS[name]}.' if name in TIMM_FLAGS else hint
            errors.append(f"unknown option '{name}'.{hint} `{prog} --help` lists every option.")
            skip = True
        elif not skip:
            errors.append(f"unexpected '{word}': every value follows its --option (a folder of images: --data-dir).")
    return errors


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def parse_pairs(words: Sequence[str], spelling: str) -> tuple[dict[str, Any], list[str]]:
    """A mapping from words such as 'depth=3'; values are Python literals, or else text."""
    pairs, errors = {}, []
    for word in words:
        name, equals, text = word.partition('=')
        if not equals or not name.isidentifier():
            errors.append(f"{spelling} has '{word}': give name=value.")
            continue
        try:
            pairs[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            if text[:1] in tuple('[({\'"'):
                errors.append(f"{spelling} has '{word}', which is no Python literal: see to its brackets and quotes.")
            pairs[name] = text
    return pairs, errors


def read_yaml(
    file: str,
    options: Sequence[Option],
    flag: str = '--config',
    environment: Optional[dict[str, Any]] = None,
) -> tuple[dict[str, Any], list[str]]:
    """The options a YAML file sets, and its errors.

    Args:
        flag: What led to the file.
        environment: Takes up what the file says of what it ran on.
    """
    named = f"{flag} is '{file}'" if flag == '--config' else f"{flag} takes its options from '{file}'"
    try:
        content = yaml.safe_load(Path(file).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is no UTF-8 text'
        return {}, [f'{named}, which cannot be read: {reason}. Give a YAML file of options.']
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        return {}, [f'{named}, which is no YAML' + (f' (line {mark.line + 1}).' if mark else '.')]
    if content is None:
        return {}, []
    if not isinstance(content, dict):
        return {}, [f"{named}, which holds no 'option: value' lines."]
    keys, errors, values = [item.key for item in options], [], {}
    for key, value in content.items():
        key = str(key).replace('-', '_')
        if key in keys:
            values[key] = value
        elif key == ENVIRONMENT:
            if environment is not None and isinstance(value, dict):
                environment.update(value)
        else:
            near = get_close_matches(key, keys, n=1)
            errors.append(f"unknown option '{key}' in {file}." + (f" Did you mean '{near[0]}'?" if near else ''))
    return values, errors


def resolve_groups(groups: Mapping[str, type], given: Given) -> tuple[dict[str, Any], list[str]]:
    """An instance of each group (None where a value could not be read), and every fault."""
    resolved, errors = {}, []
    for name, cls in groups.items():
        names = {field.name for field in dataclasses.fields(cls)}
        own = {key: value for key, value in given.values.items() if key in names}
        resolved[name], found = resolve(cls, own, given.flag_name)
        errors += found
    return resolved, errors
