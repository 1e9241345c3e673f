"""Markdown tables."""
from typing import Sequence


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a header; cells are written with `str`."""
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join(f"| {' | '.join(map(str, line))} |" for line in lines)
