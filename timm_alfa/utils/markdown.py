"""Markdown written from values that others chose: escaped text, code, and tables."""

import re
from typing import Any, Sequence

from timm_alfa.utils.text import printable

_ENTITIES = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '|': '&#124;'}


class Markdown(str):
    """Text that is Markdown already, so that `escape` leaves it alone."""


def escape(value: Any) -> Markdown:
    """A value as one line of Markdown that shows it literally: neither Markdown nor HTML in it has an effect."""
    if isinstance(value, Markdown):
        return value
    text = printable(str(value))
    text = re.sub(r'[\\`*~\[\]$]', r'\\\g<0>', text)
    text = re.sub(r'(?<![^\W_])_|_(?![^\W_])', r'\\_', text)  # inside of a word an underscore has no effect
    text = re.sub('[&<>|]', lambda match: _ENTITIES[match[0]], text)
    # what would become a link without brackets
    return Markdown(re.sub(r'://|(?<=www)\.|@', lambda match: f'&#{ord(match[0][0])};{match[0][1:]}', text))


def code_span(value: Any) -> Markdown:
    """A value as inline code, fit for a table's cell."""
    text = printable(str(value)).replace('|', r'\|')
    fence = _fence(text, 1)
    space = ' ' if text.startswith('`') or text.endswith('`') else ''
    return Markdown(f'{fence}{space}{text}{space}{fence}')


def code_block(text: str, language: str = '') -> Markdown:
    """Lines as a block of code, with a fence that none of them can close."""
    fence = _fence(text, 3)
    return Markdown(f'{fence}{language}\n{text}\n{fence}')


def link(address: str) -> Markdown:
    """An address of ours as a link."""
    return Markdown(f'<{address}>')


def _fence(text: str, shortest: int) -> str:
    """Backticks in a run that is longer than any in the text."""
    longest = max(map(len, re.findall('`+', text)), default=0)
    return '`' * max(shortest, longest + 1)


def markdown_table(columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A table with a header. Cells are Markdown; what would end a cell (a bare `|`, a line break) is escaped."""
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join(f'| {" | ".join(map(_cell, line))} |' for line in lines)


def _cell(value: Any) -> str:
    return re.sub(r'(?<!\\)\|', r'\|', printable(str(value)))
