#!/usr/bin/env python3
"""Writes what the runs show: `python studies/report.py` -> results/report.md, results/figures/, recipes/.

Files that somebody else wrote or edited are neither overwritten nor removed.
"""

import argparse
import sys
from pathlib import Path
from typing import Iterator

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies import ROOT, records
from studies.compare import by_condition, stale
from studies.figures import figures, write_figures
from studies.generated import write_texts
from studies.headers import headers
from studies.pages import page
from studies.recipe_files import RECIPES_DIR, write_recipes

PAGE = 'report.md'


def write(runs: Path, results: Path, recipes: Path) -> Iterator[str]:
    """Writes the page, the figures and the recipes.

    Args:
        runs: Folder of records.
        results: Folder of the page and of figures/.
        recipes: Folder of recipes.

    Yields:
        A line about each of them, and about each file that was kept.
    """
    found = records.load_all(runs)
    groups = by_condition(found)
    shown = figures(groups)
    outcomes = {
        results / 'figures': write_figures(shown, results / 'figures'),
        results / PAGE: write_texts(results, {PAGE: page(groups, stale(found), shown)}, PAGE),
        recipes: write_recipes(headers(found), recipes),
    }
    yield f'{len(found)} runs'
    for place, outcome in outcomes.items():
        yield f'{place}: {len(outcome.changed)} changed'
        for path in outcome.kept:
            yield f'{path}: kept, because it was edited or written by hand; move it to have it generated'


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog='studies/report.py', description=__doc__.splitlines()[0])
    parser.add_argument('--records', type=Path, default=records.RUNS, help='folder of records (default: results/runs)')
    parser.add_argument(
        '--results', type=Path, default=ROOT / 'results', help='folder of report.md and figures/ (default: results)'
    )
    parser.add_argument('--recipes', type=Path, default=RECIPES_DIR, help='folder of recipes (default: recipes)')
    args = parser.parse_args(argv)
    try:
        for line in write(args.records, args.results, args.recipes):
            print(line)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
