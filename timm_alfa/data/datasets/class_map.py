"""Class maps: files that say which number each class has, for every kind of dataset that reads labels as text."""

import os
import unicodedata
from typing import Any, Iterable, Mapping, Union

from timm.data.readers.class_map import load_class_map

from timm_alfa.errors import DataError, did_you_mean, first_line
from timm_alfa.utils.files import open_regular
from timm_alfa.utils.text import shorten_list

ClassMap = dict[Union[str, int], int]  # by the text of a label, or in a .pkl file also by its number
MAX_CLASS_MAP = 1 << 24  # bytes
SHOWN = 5  # names that a message lists


def read_class_map(path: str) -> ClassMap:
    """Reads a class map: a .txt file with one class name per line, or timm's .pkl file of a dictionary.

    A byte-order mark, blank lines, and white space around names are skipped.

    Returns:
        Numbers by label; {} for an empty path.

    Raises:
        DataError: It is not a regular file of a sensible size; or is empty, not UTF-8, or ambiguous.
    """
    if not path:
        return {}
    extension = os.path.splitext(path)[1].lower()
    try:
        content = _content(path)
        if extension == '.txt':
            numbers = _numbered(content.decode('utf-8-sig'))
        elif extension == '.pkl':
            numbers = _checked(_unpickled(path))
        else:
            raise ValueError('use a .txt file with one class name per line, or a .pkl file')
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read class map '{path}': it is not UTF-8: save it as UTF-8.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise DataError(f"cannot read class map '{path}': {reason}.") from error
    if not numbers:
        raise DataError(f"class map '{path}' names no class: write one class name per line.")
    return numbers


def by_text(numbers: Mapping[Any, int]) -> dict[str, int]:
    """Returns a class map by the text of its labels, for data whose labels are text."""
    return {str(label): number for label, number in numbers.items()}


def check_known(labels: Iterable[Any], numbers: Mapping[Any, int], path: str) -> None:
    """Checks that a class map numbers all labels of the data: an image of any other would have to be dropped.

    Args:
        labels: Each once.
        numbers: The class map, by the same labels.
        path: File of the class map.

    Raises:
        DataError: It does not; the message names those that it lacks.
    """
    missing = [label for label in labels if label not in numbers]
    if missing:
        names = list(map(str, numbers))
        raise DataError(
            f"class map '{path}' lacks {shorten_list([f'{label!r}' for label in missing], SHOWN)}"
            f'{_hint(str(missing[0]), names)} It has {len(numbers)} classes: {shorten_list(names, SHOWN)}.'
        )


def _hint(label: str, names: list[str]) -> str:
    """Returns the end of the sentence, and the name that may be meant."""
    same = unicodedata.normalize('NFC', label)
    if any(unicodedata.normalize('NFC', name) == same for name in names):
        return ', which it writes with other Unicode characters that look the same: copy the name from the data.'
    return f': add it.{did_you_mean(label, names)}'


def _content(path: str) -> bytes:
    """Reads a regular file of a sensible size.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger.
    """
    with open_regular(path, follow_links=True) as file:
        content = file.read(MAX_CLASS_MAP + 1)
    if len(content) > MAX_CLASS_MAP:
        raise ValueError(f'it is larger than {MAX_CLASS_MAP >> 20} MiB')
    return content


def _numbered(text: str) -> ClassMap:
    """Numbers the names in a text.

    Raises:
        ValueError: A name is there twice, or is a comment: whether that counts cannot be seen.
    """
    lines: dict[str, int] = {}
    for at, line in enumerate(text.replace('\r\n', '\n').replace('\r', '\n').split('\n'), 1):
        name = line.strip()
        if not name:
            continue
        if name.startswith('#'):
            raise ValueError(f"line {at} is '{name[:50]}', a comment: every line is a class name, so remove it")
        if name in lines:
            raise ValueError(f"'{name}' is in lines {lines[name]} and {at}: every class is one line")
        lines[name] = at
    return {name: number for number, name in enumerate(lines)}


def _unpickled(path: str) -> dict:
    """Returns the dictionary of a .pkl file through timm, which unpickles nothing but plain values.

    Raises:
        ValueError: It holds anything else, or is damaged.
    """
    try:
        return load_class_map(path)
    except Exception as error:  # unpickling raises whatever the bytes lead to
        raise ValueError(first_line(error)) from error


def _checked(numbers: dict) -> ClassMap:
    """Returns a dictionary of a .pkl file. Several names may have one number, numbers may be missing.

    Raises:
        ValueError: A label is not text or an integer, a number is not an integer from 0 on, or two labels read alike.
    """
    for label, number in numbers.items():
        if isinstance(label, bool) or not isinstance(label, (str, int)):
            raise ValueError(f'label {label!r} is not text or an integer')
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f'the number of label {label!r} is {number!r}: use integers from 0 on')
        if isinstance(label, int) and numbers.get(str(label), number) != number:
            raise ValueError(f'label {label} is there as a number and as text')
    return numbers
