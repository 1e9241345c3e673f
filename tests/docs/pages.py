"""The pages that tests of the documentation walk over, and how they are read."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PATTERNS = ('*.md', 'docs/*.md', 'hub/*.md', 'timm_alfa/tasks/cards/*.md', '.github/**/*.md')
PAGES = sorted(str(path.relative_to(ROOT)) for pattern in _PATTERNS for path in ROOT.glob(pattern))
_FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    """The text of a page, by its path from the root of the repository."""
    return (ROOT / page).read_text(encoding='utf-8')


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [code for found, code in _FENCE.findall(read(page)) if found == language]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub('', read(page))


def on_one_line(page: str) -> str:
    """A page with every run of white space as one blank, so that wrapped sentences can be found."""
    return ' '.join(read(page).split())


def table_rows(page: str, header: str) -> list[list[str]]:
    """The cells of the first table whose header starts with `header`, row by row."""
    lines = iter(read(page).splitlines())
    for line in lines:
        if line.startswith(f'| {header} |'):
            next(lines)
            rows = []
            for row in lines:
                if not row.startswith('|'):
                    break
                rows.append([cell.strip() for cell in row.strip('|').split(' | ')])
            return rows
    raise LookupError(f'{page} has no table that starts with {header!r}')
