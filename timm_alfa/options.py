"""Options as frozen dataclasses: one declaration gives the flag, the YAML key, the check and the help text."""

import dataclasses
import math
import re
import types
import typing
from dataclasses import MISSING
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Union

from timm_alfa.errors import ConfigError, one_of

# One number, or one for each block.
PerBlock = Union[float, tuple[float, ...]]

_TRUE, _FALSE = ('true', 'yes', 'on', '1'), ('false', 'no', 'off', '0')
_NONE = ('None', 'null', 'Null', 'NULL')  # 'none' is a text that some models take
_NUMBER = re.compile(r'[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?(/[0-9]+\.?[0-9]*)?')


def option(
    default: Any,
    help: str,
    *,
    choices: Optional[Sequence] = None,
    low: Optional[float] = None,
    high: Optional[float] = None,
    above: Optional[float] = None,
    flag: Optional[str] = None,
    metavar: Optional[str] = None,
    words: Optional[Mapping[str, Any]] = None,
):
    """A dataclass field with its help text and its valid values.

    Args:
        default: The value if none is given. Mappings are copied for each instance.
        help: One line for `--help`.
        choices: The only values allowed; `None` is allowed if the annotation is Optional.
        low: Smallest value allowed.
        high: Largest value allowed.
        above: The value must be larger than this.
        flag: The short flag, such as `-b`.
        metavar: What `--help` calls the value, such as FILE.
        words: Values outside of this range, by the words that stand for them.
    """
    metadata = dict(
        help=help, choices=choices, low=low, high=high, above=above, flag=flag, metavar=metavar, words=words or {}
    )
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def long_flag(key: str) -> str:
    """An option's flag on the command line, from its field's name or YAML key."""
    return '--' + key.replace('_', '-')


def default_of(field: dataclasses.Field) -> Any:
    """The default of a field, whichever way it was declared."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a config class by field name."""
    return typing.get_type_hints(cls)


def is_optional(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation) and typing.get_origin(annotation) in (Union, types.UnionType)


def core_type(annotation: Any) -> Any:
    """The annotation without its `None`."""
    if not is_optional(annotation):
        return annotation
    return next(a for a in typing.get_args(annotation) if a is not type(None))


def parse_number(value: Any) -> float:
    """A float from a number, '0.5' or a fraction such as '0.5/255'.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str) and '/' in value:
        above, _, below = value.partition('/')
        if float(below) == 0:
            raise ValueError(value)
        return float(above) / float(below)
    return float(value)


def plain_value(value: Any) -> Any:
    """A value of a mapping, in which words that mean a boolean, None or a number become that: no field says its type.

    They are read alike in YAML and on the command line, where 'false' would be a text, which is true.
    """
    if isinstance(value, Mapping):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain_value, value))
    if not isinstance(value, str):
        return value
    if value in _NONE:
        return None
    if value.lower() in (*_TRUE, *_FALSE) and not value.isdecimal():
        return value.lower() in _TRUE
    if not _NUMBER.fullmatch(value):
        return value
    try:
        return int(value) if value.lstrip('+-').isdecimal() else parse_number(value)
    except ValueError:  # a fraction of zero
        return value


def convert(value: Any, annotation: Any) -> Any:
    """A value from the command line or YAML as its field's type.

    Raises:
        ValueError, TypeError: It cannot be read as that type.
    """
    optional = is_optional(annotation)
    if value is None or (optional and isinstance(value, str) and value.lower() == 'none'):
        if optional:
            return None
        raise ValueError(value)

    kind = core_type(annotation)
    if kind == PerBlock:
        return _to_number_or_tuple(value)
    if typing.get_origin(kind) is tuple:
        return _to_tuple(value, typing.get_args(kind)[0])
    converter = _CONVERTERS.get(typing.get_origin(kind) or kind)
    return converter(value) if converter else value


def _to_tuple(value: Any, annotation: Any) -> tuple:
    if isinstance(value, str):
        value = value.replace(',', ' ').split()
    elif isinstance(value, (int, float)):
        value = [value]
    return tuple(convert(item, annotation) for item in value)


def _to_number_or_tuple(value: Any) -> PerBlock:
    """A number, or a tuple from a sequence or from text with commas; a sequence of one stays one."""
    if isinstance(value, (list, tuple)) or (isinstance(value, str) and ',' in value):
        numbers = _to_tuple(value, float)
        if not numbers:
            raise ValueError(value)
        return numbers
    return parse_number(value)


def numbers(value: PerBlock) -> tuple[float, ...]:
    """The numbers of an option that is one number, or one for each block."""
    return value if isinstance(value, tuple) else (value,)


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(value)
    return word in _TRUE


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError(value)
    return int(float(value))


def _to_mapping(value: Any) -> dict:
    return plain_value(dict(value))


def _to_text(value: Any) -> str:
    if isinstance(value, (bool, Mapping)):
        raise ValueError(value)
    return ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    bool: _to_bool,
    int: _to_int,
    float: parse_number,
    str: _to_text,
    dict: _to_mapping,
}


def type_name(annotation: Any) -> str:
    """What to call a field's type in a message."""
    kind = core_type(annotation)
    names = {
        int: 'a whole number',
        float: "a number or a fraction such as '0.5/255'",
        bool: 'true or false',
        str: 'text',
        dict: 'a mapping',
    }
    if kind == PerBlock:
        return f'{type_name(float)}, or a list of them, one for each block'
    if typing.get_origin(kind) is tuple:
        return f'a list, each {type_name(typing.get_args(kind)[0])}'
    return names.get(kind, names.get(typing.get_origin(kind), str(kind)))


def _value_errors(name: str, value: Any, metadata: Mapping) -> Iterator[str]:
    """A line for each value, or item of a tuple, that the field does not allow."""
    for item in value if isinstance(value, tuple) else (value,):
        if item is None:
            continue
        choices = metadata.get('choices')
        if choices is not None and item not in choices:
            yield one_of(name, item, [str(choice) for choice in choices])
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            yield from _range_errors(name, item, metadata)


def _range_errors(name: str, number: float, metadata: Mapping) -> Iterator[str]:
    low, high, above = metadata.get('low'), metadata.get('high'), metadata.get('above')
    if not math.isfinite(number):
        yield f'{name} is {number}: it must be a finite number.'
    elif low is not None and number < low:
        yield f'{name} is {number}: it must be at least {low}.'
    elif high is not None and number > high:
        yield f'{name} is {number}: it must be at most {high}.'
    elif above is not None and number <= above:
        yield f'{name} is {number}: it must be above {above}.'


def resolve(cls: type, values: Mapping[str, Any], flag_name=lambda name: name) -> tuple[Optional[Any], list[str]]:
    """An instance of a config class from untyped values, and all errors in them.

    Args:
        cls: A frozen dataclass of `option` fields. Its method `errors(flag_name)`, if it has one, checks them against
            each other.
        values: By field name.
        flag_name: How the user spells a field's name (a flag, a keyword), for messages.

    Returns:
        The instance (None if one of its values is invalid) and the errors, one line each.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    annotations = hints(cls)
    ready, found = {}, []
    for name, value in values.items():
        spelling = flag_name(name)
        if name not in fields:
            found.append(one_of('option', spelling, [flag_name(known) for known in fields]))
            continue
        words = fields[name].metadata.get('words', {})
        if isinstance(value, str) and value in words:
            ready[name] = words[value]
            continue
        try:
            ready[name] = convert(value, annotations[name])
        except (ValueError, TypeError, OverflowError):  # int(float('inf')) overflows
            found.append(f'{spelling} is {value!r}: it must be {" or ".join([type_name(annotations[name]), *words])}.')
            continue
        found += _value_errors(spelling, ready[name], fields[name].metadata)
    if found:
        return None, found

    config = cls(**ready)
    errors = list(config.errors(flag_name)) if hasattr(config, 'errors') else []
    return config, errors


def build(cls: type, values: Mapping[str, Any], flag_name=lambda name: name) -> Any:
    """Like `resolve`, but raises.

    Raises:
        ConfigError: With all errors.
    """
    config, found = resolve(cls, values, flag_name)
    if found:
        raise ConfigError(found)
    return config


def own_flag_errors(arguments: Mapping[str, Any], origin: str, flags: Mapping[str, str]) -> Iterator[str]:
    """A line for each argument that a command takes in another way.

    Args:
        flags: What to use instead, by the name of the argument.
    """
    for name in arguments:
        if name in flags:
            yield f"{origin} has '{name}': use {flags[name]}."
