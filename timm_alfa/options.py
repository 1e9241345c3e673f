"""Options as frozen dataclasses: one declaration gives the flag, the YAML key, the check and the help text."""

import dataclasses
import types
import typing
from dataclasses import MISSING
from typing import Any, Iterator, Mapping, Optional, Sequence, Union

from timm_alfa.errors import ConfigError, one_of

_TRUE, _FALSE = ('true', 'yes', 'on', '1'), ('false', 'no', 'off', '0')


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
):
    """A dataclass field that knows its help text and what is valid.

    Args:
        default: The value when nothing is given. Mappings are copied for each instance.
        help: One line for `--help`.
        choices: The only values allowed; `None` is allowed where the annotation is Optional.
        low: Smallest value allowed.
        high: Largest value allowed.
        above: The value must be larger than this.
        flag: The short flag, such as `-b`.
        metavar: What `--help` calls the value, such as FILE.
    """
    metadata = dict(help=help, choices=choices, low=low, high=high, above=above, flag=flag, metavar=metavar)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field) -> Any:
    """The default of a field, whichever way it was declared."""
    return field.default if field.default is not MISSING else field.default_factory()


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
        ValueError: It is neither.
    """
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str) and '/' in value:
        above, _, below = value.partition('/')
        if float(below) == 0:
            raise ValueError(value)
        return float(above) / float(below)
    return float(value)


def convert(value: Any, annotation: Any) -> Any:
    """A value from the command line or YAML as its field's type.

    Raises:
        ValueError, TypeError: It has no reading as that type.
    """
    if value is None or (isinstance(value, str) and value.lower() == 'none' and is_optional(annotation)):
        if is_optional(annotation):
            return None
        raise ValueError(value)
    kind = core_type(annotation)
    if typing.get_origin(kind) is tuple:
        parts = value.replace(',', ' ').split() if isinstance(value, str) else value
        parts = [parts] if isinstance(parts, (int, float)) else parts
        return tuple(convert(part, typing.get_args(kind)[0]) for part in parts)
    if kind is bool:
        return _boolean(value)
    if kind is int:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError(value)
        return int(float(value))
    if kind is float:
        return parse_number(value)
    if kind is str:
        if isinstance(value, (bool, Mapping)):
            raise ValueError(value)
        return ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if typing.get_origin(kind) is dict or kind is dict:
        return dict(value)
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(value)
    return word in _TRUE


def type_name(annotation: Any) -> str:
    """What to call a field's type in a message."""
    kind = core_type(annotation)
    names = {
        int: 'a whole number',
        float: "a number or a fraction such as '0.5/255'",
        bool: 'true or false',
        str: 'a text',
        dict: 'a mapping',
    }
    if typing.get_origin(kind) is tuple:
        return f'a list, each {type_name(typing.get_args(kind)[0])}'
    return names.get(kind, names.get(typing.get_origin(kind), str(kind)))


def _value_errors(name: str, value: Any, meta: Mapping) -> Iterator[str]:
    for item in value if isinstance(value, tuple) else (value,):
        if item is None:
            continue
        if meta.get('choices') is not None and item not in meta['choices']:
            yield one_of(name, item, [str(c) for c in meta['choices']])
            continue
        if not isinstance(item, (int, float)) or isinstance(item, bool):
            continue
        if item != item or item in (float('inf'), float('-inf')):
            yield f'{name} is {item}: give a finite number.'
        elif meta.get('low') is not None and item < meta['low']:
            yield f'{name} is {item}: it must be at least {meta["low"]}.'
        elif meta.get('high') is not None and item > meta['high']:
            yield f'{name} is {item}: it must be at most {meta["high"]}.'
        elif meta.get('above') is not None and item <= meta['above']:
            yield f'{name} is {item}: it must be above {meta["above"]}.'


def resolve(cls: type, values: Mapping[str, Any], flag_name=lambda name: name) -> tuple[Optional[Any], list[str]]:
    """An instance of a config class from untyped values, and every fault found on the way.

    Args:
        cls: A frozen dataclass of `option` fields. Its method `errors(flag_name)`, if it has one, checks them against
            each other.
        values: By field name.
        flag_name: How the user spells a field's name (a flag, a keyword), for messages.

    Returns:
        The instance (None where a value could not be read) and the errors, one line each.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    annotations, ready, found = hints(cls), {}, []
    for name, value in values.items():
        if name not in fields:
            found.append(one_of('option', flag_name(name), [flag_name(known) for known in fields]))
            continue
        try:
            ready[name] = convert(value, annotations[name])
        except (ValueError, TypeError, OverflowError):  # int(float('inf')) overflows
            found.append(f'{flag_name(name)} is {value!r}: give {type_name(annotations[name])}.')
            continue
        found += _value_errors(flag_name(name), ready[name], fields[name].metadata)
    if found:
        return None, found
    config = cls(**ready)
    return config, list(config.errors(flag_name)) if hasattr(config, 'errors') else []


def build(cls: type, values: Mapping[str, Any], flag_name=lambda name: name) -> Any:
    """Like `resolve`, but raises.

    Raises:
        ConfigError: With all errors.
    """
    config, found = resolve(cls, values, flag_name)
    if found:
        raise ConfigError(found)
    return config
