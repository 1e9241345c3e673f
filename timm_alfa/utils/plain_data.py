"""YAML and JSON files that others may have written, read as plain data of a limited size and depth."""

import json
import re
from pathlib import Path
from typing import Any, Union

import yaml

from timm_alfa.utils.files import open_regular

MAX_DEPTH = 20
MAX_YAML_BYTES = 1 << 18
MAX_JSON_BYTES = 1 << 26
MAX_JSON_DEPTH = 100
MAX_INTEGER = 1 << 63
# '1e-3' and '1.5e3', which YAML 1.1 and PyYAML take for text.
_EXPONENT = re.compile(r'[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+')
_FLOAT, _INT = 'tag:yaml.org,2002:float', 'tag:yaml.org,2002:int'
# What plain text may be taken for: no dates, and no '<<' that merges mappings.
_TAGS = ('tag:yaml.org,2002:bool', 'tag:yaml.org,2002:null', _FLOAT, _INT)


class PlainDataError(ValueError):
    """A file is not plain data; the message is a clause without its path, such as "line 3 repeats 'lr'"."""


def read_yaml(path: Union[str, Path], follow_links: bool = True) -> Any:
    """A YAML file as numbers, text, booleans, None, lists and mappings.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        PlainDataError: It is too large or too deep, not UTF-8 or not YAML; it repeats a key; or it has aliases or tags.
    """
    return parse_yaml(_read_text(path, MAX_YAML_BYTES, follow_links))


def parse_yaml(text: str) -> Any:
    """Like `read_yaml`, from text.

    Raises:
        PlainDataError: It is too deep or not YAML; it repeats a key; or it has aliases or tags.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f'line {mark.line + 1}' if mark is not None else 'it'
        raise PlainDataError(f'{where} is not valid YAML: {error.problem}') from error
    except yaml.YAMLError as error:
        raise PlainDataError('it holds characters that YAML does not allow') from error


def dump_yaml(value: Any) -> str:
    """Plain data as the text that `parse_yaml` reads as the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_json(path: Union[str, Path], follow_links: bool = True) -> Any:
    """A JSON file.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        PlainDataError: It is too large or too deep, not UTF-8 or not JSON.
    """
    return parse_json(_read_text(path, MAX_JSON_BYTES, follow_links))


def parse_json(text: str) -> Any:
    """Like `read_json`, from text."""
    if len(text) > MAX_JSON_BYTES:
        raise PlainDataError(f'it is larger than {MAX_JSON_BYTES >> 10} KiB')
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise PlainDataError('it is nested too deeply') from error
    except ValueError as error:
        raise PlainDataError(f'it is not valid JSON: {error}') from error
    if _is_deeper(value, MAX_JSON_DEPTH):
        raise PlainDataError('it is nested too deeply')
    return value


def _is_deeper(value: Any, most: int) -> bool:
    """Whether lists and mappings are nested in more than so many levels."""
    level = [value]
    for _ in range(most):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        level = inner
    return any(isinstance(each, (dict, list)) for each in level)


def _read_text(path: Union[str, Path], most: int, follow_links: bool) -> str:
    with open_regular(path, follow_links) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise PlainDataError(f'it is larger than {most >> 10} KiB')
    try:
        return content.decode('utf-8')
    except UnicodeDecodeError as error:
        raise PlainDataError('it is not UTF-8 text') from error


def _resolvers(base: dict[str, list], tags: tuple[str, ...]) -> dict[str, list]:
    """PyYAML's rules for plain text by its first character, those of some tags, with numbers such as 1e-3."""
    kept = {first: [row for row in rows if row[0] in tags] for first, rows in base.items()}
    for first in '-+.0123456789':
        kept[first] = [*kept.get(first, ()), (_FLOAT, re.compile(f'(?:{_EXPONENT.pattern})$'))]
    return kept


class _Loader(yaml.SafeLoader):
    """Refuses what makes a small file large, or lets its reader see less than it holds."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers, _TAGS)

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise PlainDataError(f'line {line} has an alias, *{event.anchor}: write the value out')
        if event.tag is not None:
            raise PlainDataError(f'line {line} has a tag, {event.tag}: write plain values')
        if self.depth == MAX_DEPTH:
            raise PlainDataError(f'line {line} is nested deeper than {MAX_DEPTH} levels')

        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise PlainDataError(f'line {line} has a key that is not text')
            key = self.construct_object(key_node)
            if key in seen:
                raise PlainDataError(f"line {line} repeats '{key}'")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_integer(self, node):
        # Python refuses to convert very long numbers, to and from text
        value = self.construct_yaml_int(node) if len(node.value) <= 100 else MAX_INTEGER
        if abs(value) >= MAX_INTEGER:
            raise PlainDataError(f'line {node.start_mark.line + 1} has a number that is too large')
        return value


_Loader.add_constructor(_INT, _Loader.construct_integer)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would take for a number."""

    yaml_implicit_resolvers = _resolvers(
        yaml.SafeDumper.yaml_implicit_resolvers,
        tuple({tag for rows in yaml.SafeDumper.yaml_implicit_resolvers.values() for tag, _ in rows}),
    )

    def ignore_aliases(self, data):
        return True

    def represent_text(self, data):
        # PyYAML breaks lines at these without escaping them, unless the text is in double quotes
        style = '"' if any(char in data for char in '\x85\u2028\u2029') else None
        return self.represent_scalar('tag:yaml.org,2002:str', data, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
