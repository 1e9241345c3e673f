"""Text as users write and read it: numbers with units, and names that others wrote."""

import re
from typing import NamedTuple, Optional, Sequence


class Interval(NamedTuple):
    """The time between two states: in seconds, or in updates."""

    seconds: Optional[float] = None
    updates: Optional[int] = None


def parse_interval(text: str) -> Interval:
    """An interval from '10m' (minutes) or '500' (updates).

    Raises:
        ValueError: It is neither, or not positive.
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*m(?:in)?|(\d+)', str(text).strip())
    if not match:
        raise ValueError(text)
    minutes, updates = match.groups()
    if float(minutes or updates) <= 0:
        raise ValueError(text)
    return Interval(seconds=60 * float(minutes)) if minutes else Interval(updates=int(updates))


def duration(seconds: float) -> str:
    """Seconds as '7.2 s', '3:05' or '2:03:05'."""
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'


def short_number(value: float) -> str:
    """A count as '812', '27.3k' or '25.6M'."""
    for limit, suffix in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= limit:
            return f'{value / limit:.3g}{suffix}'
    return f'{value:.3g}' if isinstance(value, float) else str(value)


def printable(text: str, keep: str = '') -> str:
    """Text that a terminal, a model card or YAML shows as it is, on one line.

    Whatever Python does not call printable is written as in its `repr`: control characters such as an escape sequence,
    line breaks (also U+0085, U+2028 and U+2029), marks that reverse the direction of text, and lone surrogates.

    Args:
        text: From anywhere.
        keep: Characters that stay as they are.
    """
    return ''.join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode('unicode_escape').decode('ascii')


def shorten_list(names: Sequence[str], most: int) -> str:
    """Names in a row, 'a, b and 3 more' if there are more than `most`."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(f'{cell:{width}}' for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return '\n'.join(lines)
