"""From the command line and YAML to resolved groups of options: all errors in one message, before anything happens."""

import argparse
import ast
import dataclasses
import textwrap
import typing
from difflib import get_close_matches
from typing import Any, Collection, Mapping, NamedTuple, Optional, Sequence

from timm_alfa.errors import ConfigError, did_you_mean
from timm_alfa.options import PerBlock, core_type, default_of, hints, long_flag, resolve
from timm_alfa.training.options.other_flags import other_flag_hint
from timm_alfa.training.options.recipes import find_recipe, recipe_hint
from timm_alfa.utils import plain_data
from timm_alfa.utils.files import expand_home
from timm_alfa.utils.program import spelling, version

# The value of a flag that is passed without one.
WITHOUT_VALUE = {'torchcompile': 'inductor', 'per_class': 'per_class'}
# How similar an option must be to be suggested: a farther one would lead astray.
_NEAR = 0.75
# What --help calls values that are paths, and other options that may hold one.
PATHS, WITH_PATHS = ('FILE', 'FOLDER', 'PATH', 'RUN'), ('model', 'dataset')
# The key of args.yaml for what is not an option; a YAML file passed by --config may have it.
ENVIRONMENT = 'environment'


class Option(NamedTuple):
    """One flag.

    Attributes:
        key: Its YAML key.
        group: The group that it belongs to.
        field: The dataclass field that it sets.
        annotation: The type of that field.
        note: Follows the default in the help text.
    """

    key: str
    group: str
    field: dataclasses.Field
    annotation: Any
    note: str = ''

    @property
    def spelling(self) -> str:
        return long_flag(self.key)

    @property
    def is_path(self) -> bool:
        return self.field.metadata.get('metavar') in PATHS or self.key in WITH_PATHS

    @property
    def negation(self) -> str:
        """The flag that turns a boolean option off."""
        return long_flag('no_' + self.key)


class Given(NamedTuple):
    """What the user set.

    Attributes:
        values: By key.
        source: Where each value comes from: '' is the command line.
        inherited: Keys that come from a run or from defaults of the dataset, and not from the user.
        environment: What --config says its run ran on.
    """

    values: dict[str, Any]
    source: dict[str, str]
    inherited: set[str]
    environment: dict[str, Any]

    def flag_name(self, key: str) -> str:
        """A key as the user wrote it."""
        source = self.source.get(key, '')
        return f"'{key}' in {source}" if source else long_flag(key)

    def inherit(self, key: str, value: Any, source: str) -> None:
        """Sets a value that the user did not set."""
        self.values[key] = value
        self.source[key] = source
        self.inherited.add(key)


def group_options(name: str, cls: type) -> list[Option]:
    """The options of a config class, in the order of its fields."""
    annotations = hints(cls)
    return [Option(field.name, name, field, annotations[field.name]) for field in dataclasses.fields(cls)]


def options_of_groups(groups: Mapping[str, type], data_keys: Optional[Collection[str]] = None) -> list[Option]:
    """The options of some groups, one group after the other.

    Args:
        groups: Config classes by name.
        data_keys: Those that the command has of the group 'data'; None: all of them.
    """
    options = [item for name, cls in groups.items() for item in group_options(name, cls)]
    return [item for item in options if data_keys is None or item.group != 'data' or item.key in data_keys]


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print a usage and exit."""

    def error(self, message: str):
        raise ConfigError(f'{message}. `{self.prog} --help` lists every option.')


class _Help(argparse.HelpFormatter):
    """Help in two wide columns, which does not break lines within a flag."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=118)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def build_parser(
    command: str,
    description: str,
    titles: Mapping[str, str],
    options: Sequence[Option],
    operand: Optional[Option] = None,
) -> _Parser:
    """A parser whose result holds only what was given, as text.

    Args:
        command: Such as 'train'.
        titles: Title of each group, in the order of the help.
        options: All flags; their `group` is a key of `titles`.
        operand: What words that follow no flag are the values of, if there may be any.
    """
    called = spelling(command)
    words = '[options]' if operand is None else f'{operand.field.metadata["metavar"]}... [options]'
    parser = _Parser(
        prog=called.name,
        description=description,
        usage=f'{called.name} {words}\n       accelerate launch {" ".join(called.launch)} {words}',
        formatter_class=_Help,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        '-c',
        '--config',
        metavar='FILE',
        help='YAML file of options, or the name of a recipe, such as small/alfa; the command line overrides it',
    )
    parser.add_argument('--version', action='version', version=version())
    if operand is not None:
        metadata = operand.field.metadata
        parser.add_argument(operand.key, nargs='*', metavar=metadata['metavar'], help=metadata['help'])
    groups = {name: parser.add_argument_group(title) for name, title in titles.items()}
    for item in options:
        _add_argument(groups[item.group], item)
    return parser


def _add_argument(group, item: Option) -> None:
    kind = core_type(item.annotation)
    short = item.field.metadata.get('flag')
    names = [short, item.spelling] if short else [item.spelling]
    text = _help_text(item)

    if kind is bool:
        group.add_argument(*names, dest=item.key, action='store_const', const=True, help=text)
        if not item.key.startswith('no_'):
            group.add_argument(item.negation, dest=item.key, action='store_const', const=False, help=argparse.SUPPRESS)
        return

    arguments = dict(dest=item.key, metavar=_metavar(item, kind), help=text)
    if kind is dict or typing.get_origin(kind) is dict:
        arguments['nargs'] = '*'
    elif typing.get_origin(kind) is tuple:
        arguments['nargs'] = '+'
    elif item.key in WITHOUT_VALUE:
        arguments.update(nargs='?', const=WITHOUT_VALUE[item.key])
    group.add_argument(*names, **arguments)


def _metavar(item: Option, kind: Any) -> str:
    metadata = item.field.metadata
    if metadata.get('choices'):
        return '{' + ','.join(map(str, metadata['choices'])) + '}'
    if metadata.get('metavar'):
        return metadata['metavar']
    if kind == PerBlock:
        return 'X[,X,...]'
    if typing.get_origin(kind) is tuple:
        return 'X'
    return {int: 'N', float: 'X', dict: 'KEY=VALUE'}.get(kind, 'NAME')


def _help_text(item: Option) -> str:
    """The help of an option and its default; argparse reads a percent sign as a format."""
    text = item.field.metadata['help']
    default = default_of(item.field)
    if default is True:
        text += f' (default: on; {item.negation} turns it off)'
    elif default is not None and default is not False and default not in ('', {}):
        shown = _number(default) if isinstance(default, float) else default
        text += f' (default: {shown}{item.note})'
    return text.replace('%', '%%')


def _number(value: float) -> str:
    """A number as a user would type it: sizes of pixels and features are fractions of 255."""
    levels = round(value * 255)
    if 0 < levels <= 16 and abs(value * 255 - levels) < 1e-6:
        return f'{levels}/255'
    return f'{value:.6g}'


def read_command_line(
    parser: _Parser, argv: Optional[Sequence[str]], options: Sequence[Option]
) -> tuple[Given, list[str]]:
    """What the command line and the YAML file that it names set, and an error for each thing that is not an option."""
    known, rest = parser.parse_known_intermixed_args(argv)
    values = vars(known)
    file = values.pop('config', None)
    errors = unknown_flags(rest, options, parser.prog)

    for item in options:
        if isinstance(default_of(item.field), dict) and item.key in values:
            values[item.key], found = parse_pairs(values[item.key], item.spelling)
            errors += found

    # the command line overrides the file
    given = Given(dict(values), dict.fromkeys(values, ''), set(), {})
    if file is not None:
        file = find_recipe(expand_home(file))
        content, found = read_yaml(file, options, environment=given.environment)
        errors += found
        for key, value in content.items():
            if key not in values:
                given.values[key] = value
                given.source[key] = file
    for item in options:
        if item.is_path and isinstance(given.values.get(item.key), str):
            given.values[item.key] = expand_home(given.values[item.key])
    return given, errors


def unknown_flags(rest: Sequence[str], options: Sequence[Option], prog: str) -> list[str]:
    """A line for each word on the command line that is not an option or the value of one."""
    flags = [item.spelling for item in options] + ['--config', '--help']
    errors = []
    follows_flag = False
    for word in rest:
        if word.startswith('-') and not _is_number(word):
            name = word.split('=')[0]
            errors.append(f"unknown option '{name}'.{_flag_hint(name, flags)} `{prog} --help` lists every option.")
            follows_flag = True
        elif not follows_flag:
            errors.append(f"unexpected '{word}': every value follows its --option (a folder of images: --data-dir).")
    return errors


def _flag_hint(name: str, flags: Sequence[str]) -> str:
    """A hint for an unknown flag, which follows a sentence; empty if none is near."""
    if hint := other_flag_hint(name):
        return hint
    completions = [flag for flag in flags if flag.startswith(name)]
    if completions:
        return f" Did you mean '{completions[0]}'?"
    # without the dashes, which would make all flags similar
    near = get_close_matches(name.lstrip('-'), [flag.lstrip('-') for flag in flags], n=1, cutoff=_NEAR)
    return f" Did you mean '--{near[0]}'?" if near else ''


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def parse_pairs(words: Sequence[str], spelling: str) -> tuple[dict[str, Any], list[str]]:
    """A mapping from words such as 'depth=3', and its errors; values are Python literals, or else text.

    What such a text means, `plain_value` says.
    """
    pairs, errors = {}, []
    for word in words:
        name, equals, text = word.partition('=')
        if not equals or not name.isidentifier():
            errors.append(f"{spelling} has '{word}': write name=value.")
            continue
        if name in pairs:
            errors.append(f"{spelling} has '{name}' twice: leave one out.")
        try:
            pairs[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            if text[:1] in tuple('[({\'"'):
                errors.append(f"{spelling} has '{word}', which is not a Python literal: check its brackets and quotes.")
            pairs[name] = text
    return pairs, errors


def read_yaml(
    file: str,
    options: Sequence[Option],
    flag: str = '--config',
    environment: Optional[dict[str, Any]] = None,
) -> tuple[dict[str, Any], list[str]]:
    """The options that a YAML file sets, and its errors.

    Args:
        flag: The flag that led to the file.
        environment: Receives what the file says that its run ran on.
    """
    content, error = load_yaml(file, flag)
    if error is not None:
        return {}, [error]

    keys = [item.key for item in options]
    values, errors = {}, []
    for key, value in content.items():
        key = str(key).replace('-', '_')
        if key in values:
            errors.append(f"{file} repeats '{key}'.")
        elif key in keys:
            values[key] = value
        elif key == ENVIRONMENT:
            if environment is not None:
                environment.update(environment_of(content))
        else:
            hint = other_flag_hint(long_flag(key)) or did_you_mean(key, keys, _NEAR)
            errors.append(f"unknown option '{key}' in {file}.{hint}")
    return values, errors


def environment_of(content: Mapping[Any, Any]) -> dict[str, Any]:
    """What an args.yaml says that its run ran on; empty if that is missing or not a mapping."""
    environment = content.get(ENVIRONMENT)
    return environment if isinstance(environment, dict) else {}


def load_yaml(file: str, flag: str) -> tuple[dict[Any, Any], Optional[str]]:
    """The mapping in a YAML file, or what is wrong with it.

    Args:
        file: Its path.
        flag: The flag that led to it.
    """
    named = f"{flag} is '{file}'" if flag == '--config' else f"{flag} takes its options from '{file}'"
    try:
        content = plain_data.read_yaml(file)
    except OSError as error:
        hint = recipe_hint(file) if flag == '--config' else ''
        return {}, f'{named}, which cannot be read: {error.strerror}. Pass a YAML file of options.{hint}'
    except plain_data.PlainDataError as error:
        return {}, f'{named}, which cannot be used: {error}.'
    if content is not None and not isinstance(content, dict):
        return {}, f"{named}, which has no 'option: value' lines."
    return content or {}, None


def resolve_groups(groups: Mapping[str, type], given: Given) -> tuple[dict[str, Any], list[str]]:
    """An instance of each group (None if one of its values is invalid), and all errors."""
    resolved, errors = {}, []
    for name, cls in groups.items():
        names = {field.name for field in dataclasses.fields(cls)}
        own = {key: value for key, value in given.values.items() if key in names}
        resolved[name], found = resolve(cls, own, given.flag_name)
        errors += found
    return resolved, errors
