"""All that the report writes."""
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studies.evidence import Condition, Runs, load, stale
from studies.figures import draw_all
from studies.headers import headers
from studies.pages import page
from studies.recipes import write_recipes

NOTES = 'notes.md'  # by hand, in the results folder: what the numbers mean, and what was tried


def text(found: list[dict[str, Any]], groups: Mapping[Condition, Runs], figures: list[Path], results: Path) -> str:
    """The page of a results folder, with its notes."""
    notes = results / NOTES
    return page(groups, stale(found), figures, notes.read_text(encoding='utf-8') if notes.exists() else '')


def write(runs: Path, results: Path, recipes: Path) -> Iterator[str]:
    """Writes page, figures and recipes; yields a line on each."""
    found, groups = load(runs)
    figures = draw_all(groups, results / 'figures')
    (results / 'README.md').write_text(text(found, groups, figures, results), encoding='utf-8')
    yield f'{results / "README.md"}: {len(found)} runs, {len(figures)} figures'
    changed = write_recipes(headers(found), recipes)
    yield f'{recipes}: {len(changed)} changed'
