"""results/README.md: what was run, beside what the paper says."""
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from studies import stats
from studies.evidence import (
    Comparison,
    Condition,
    Runs,
    compare,
    conditions_of,
    contrasts,
    seconds_per_epoch,
    time_ratio,
    values,
)
from studies.figures import caption
from studies.headers import commits, places, score, spans
from studies.rows import RECIPES
from studies.tables import TABLES, Row, Table

HEAD = """# The paper's claims, run again

Written by `python studies/report.py` from `results/runs/` and, what the numbers mean, from `results/notes.md`;
`python studies/run.py TABLE` adds runs.

How to read it:

- Scores are top-1 on the test split, read once a run, of the checkpoint that was best on the validation split; mean ±
  standard deviation over n seeds ("2/6": two of the six that the recipe plans). A seed draws the weights, the order of
  images, and the images that are held out or left out; the test images are always the same.
- Differences are paired: runs of one seed start from the same weights and see the same images in the same order. The
  interval is Student's, 95%, for each difference by itself, over seeds, from three pairs on. "test loss" is the
  difference in mean cross-entropy on the test split: less is better, and it varies less than the count of right images.
  "validation" is the difference in points on the validation split, of the same checkpoints, which were chosen on it:
  other images, drawn by each seed. Verdicts are of the test split; where the two disagree, believe neither.
- A claim is a direction: **held** or **not held** where the interval lies on one side of zero, **undecided** where it
  does not, or where there are fewer than three pairs. "paper inside", where a row has a paper's number, says whether
  the paper's difference lies within our interval: a gain may be real and yet not as large, and an undecided one may
  rule out the paper's size.
- "more" is how many more pairs an undecided claim needs for a power of 0.8, if the difference and its deviation are
  what they look like now: with few pairs a rough guess. Seeds that are added until a verdict falls make false verdicts
  more frequent than 5%; an n above its plan ("8/6") says that it was done.
- Of N claims without any effect behind them, 0.025 N would be held by chance, and rows of a table share their standard
  runs: one verdict among many means little.
- Schedules, precisions, protocols and kinds of device are never mixed: each has a table of its own. Seconds are shown
  where a table is about time, and compared where runs had the same kind of device and as many threads, one at a time.
"""
COLUMNS = ('row', 'paper', 'here', 'n', 'against', "paper's difference", 'difference here [95%]', 'pairs', 'verdict',
           'more', 'paper inside', 'test loss', 'validation', 's an epoch')
PROTOCOLS = dict(paper="The paper's protocol", small='The small-data protocol', other='This protocol')


def page(groups: Mapping[Condition, Runs], left_out: list[str], figures: list[Path], notes: str = '') -> str:
    """The whole page.

    Args:
        groups: Runs by condition.
        left_out: Names of records whose recipe has changed since.
        figures: Files in results/figures.
        notes: Text by hand: what stands before its first heading comes first of all, the rest after the summary.
    """
    run = [table for table in TABLES.values() if conditions_of(table, groups)]
    lead, heading, rest = notes.partition('## ')
    parts = [HEAD, lead.strip(), *summary(run, groups), heading + rest.strip()]
    for table in run:
        parts += section(table, groups)
    parts += pictures(figures)
    rest = [table for table in TABLES.values() if table not in run]
    if rest:
        parts += ['## Not run here', "The paper's numbers of what nobody has run yet (`python studies/run.py NAME`)."]
        parts += [part for table in rest for part in unrun(table)]
    if left_out:
        parts += ['## Left out', 'Runs whose recipe has changed since: ' + ', '.join(f'`{name}`' for name in left_out)]
    return '\n\n'.join(part.rstrip() for part in parts if part.strip()) + '\n'


def summary(tables: list[Table], groups: Mapping[Condition, Runs]) -> Iterator[str]:
    """What became of the claims, under each protocol."""
    yield '## In short'
    for protocol in ('paper', 'small'):
        rows = list(verdicts([table for table in tables if table.protocol == protocol], groups))
        yield f'{PROTOCOLS[protocol]}: {tally(rows)}{effort(protocol, groups)}'
        yield from [markdown(('table', 'claim', "paper's difference", 'difference here [95%]', 'pairs', 'verdict',
                              'paper inside', 'on'), rows)] if rows else ()


def verdicts(tables: list[Table], groups: Mapping[Condition, Runs]) -> Iterator[tuple[str, ...]]:
    """A line for each claim that was put to the test; what several tables claim is one claim."""
    seen = set()
    for table in tables:
        for where, runs in conditions_of(table, groups):
            for found in (c for row in table.rows for c in compare(table, row, runs, where.scale) if c.verdict):
                key = (where, table.metric, found.row.recipe, found.other, table.claim(found.row, found.other))
                if key not in seen:
                    seen.add(key)
                    cells = comparison_cells(table, found)
                    yield (f'[{table.name}](#{anchor(table)})', claim_text(table, found), *cells[1:4],
                           f'**{found.verdict}**', cells[6], where.text)


def tally(rows: list[tuple[str, ...]]) -> str:
    """How many claims held."""
    if not rows:
        return 'no claim has been put to the test at its full schedule yet.'
    counts = Counter(row[5].strip('*') for row in rows)
    able = sum(int(row[4]) >= stats.FEWEST_PAIRS for row in rows)
    return (', '.join(f'{counts[name]} {name}' for name in (stats.HELD, stats.NOT_HELD, stats.UNDECIDED))
            + f'. By chance alone {0.025 * able:.1f} of the {able} with enough pairs would be held.')


def effort(protocol: str, groups: Mapping[Condition, Runs]) -> str:
    """How many runs stand behind a protocol's tables, each counted once, and how long they took."""
    recipes = {row.recipe for table in TABLES.values() if table.protocol == protocol for row in table.rows}
    found = [record for runs in groups.values() for recipe in recipes & runs.keys() for record in runs[recipe].values()]
    hours = sum(record['seconds'] for record in found) / 3600
    return f' {len(found)} runs, {hours:.1f} hours of {places(found)}.' if found else ''


def claim_text(table: Table, found: Comparison) -> str:
    """A claim in words."""
    word = 'above' if table.claim(found.row, found.other) > 0 else 'below'
    return f'{found.row.label} {word} {label(table, found.other)}'


def anchor(table: Table) -> str:
    """A table's heading, fit for a link."""
    return table.name.replace('_', '-')


def label(table: Table, recipe: str) -> str:
    """What a table calls a recipe."""
    return next(row.label for row in table.rows if row.recipe == recipe)


def section(table: Table, groups: Mapping[Condition, Runs]) -> Iterator[str]:
    """A table that has runs, under each condition."""
    yield f'## {anchor(table)}'
    yield f'{table.title} (`{table.name}`). {table.note}'
    for where, runs in conditions_of(table, groups):
        yield f'{PROTOCOLS[table.protocol]}, {where.text}: {evidence(table, runs)}.'
        yield markdown(COLUMNS, [cells for row in table.rows for cells in row_cells(table, row, runs, where.scale)])
        together = [(one.label, difference(found), difference(loss, 3), difference(validation), str(found.n))
                    for one, (found, loss, validation) in contrasts(table, runs)]
        columns = ('rows together', 'points [95%]', 'test loss', 'validation', 'seeds')
        yield markdown(columns, together) if together else ''


def evidence(table: Table, runs: Runs) -> str:
    """Where a table's runs come from."""
    found = [record for row in table.rows for record in runs.get(row.recipe, {}).values()]
    hours = sum(record['seconds'] for record in found) / 3600
    versions = sorted({f"torch {r['versions']['torch']}, timm {r['versions']['timm']}" for r in found})
    seeds = {record['seed'] for record in found}
    return (f"{len(found)} run{'s' if len(found) > 1 else ''}, seeds {spans(seeds)}, {hours:.1f} hours in all, each on "
            f"{places(found)}; {'; '.join(versions)}; {commits(found)}")


def row_cells(table: Table, row: Row, runs: Runs, scale: float) -> Iterator[tuple[str, ...]]:
    """A row's lines: the first with its score, one for each comparison."""
    found = stats.sample(list(values(runs.get(row.recipe, {}), table.metric).values()))
    head = (row.label, paper_score(row) if scale == 1 else '', 'not run' if found is None else score(found),
            '' if found is None else count(found.n, RECIPES[row.recipe].seeds))
    cost = time_cell(table, row, runs) if table.timed else ''
    comparisons = [c for c in compare(table, row, runs, scale) if c.difference is not None or c.paper is not None]
    if not comparisons:
        yield (*head, *[''] * 9, cost)
    for at, comparison in enumerate(comparisons):
        yield (*(head if at == 0 else [''] * 4), *comparison_cells(table, comparison), cost if at == 0 else '')


def count(n: int, planned: int) -> str:
    """A number of seeds, with the planned one where it is another."""
    return str(n) if n == planned else f'{n}/{planned}'


def comparison_cells(table: Table, found: Comparison) -> tuple[str, ...]:
    """From 'against' to 'validation'."""
    inside, here = found.paper_inside, found.difference
    printed = '' if found.paper is None else f'{found.paper:+.2f}'
    return (label(table, found.other), printed, difference(here), '' if here is None else str(here.n),
            found.verdict or '', found.more or '', '' if inside is None else 'yes' if inside else 'no',
            difference(found.loss, 3), difference(found.validation))


def paper_score(row: Row) -> str:
    if row.paper is None:
        return ''
    spread = '' if row.spread is None else f' ± {row.spread:.2f}'
    return f'{row.paper:.2f}{spread}' + ('' if row.seconds is None else f' ({row.seconds:g} s)')


def difference(found: Optional[stats.Difference], digits: int = 2) -> str:
    """A paired difference with its interval."""
    if found is None:
        return ''
    mean, low, high = (None if x is None else f'{x:+.{digits}f}' for x in (found.mean, found.low, found.high))
    return mean if low is None else f'{mean} [{low}, {high}]'


def time_cell(table: Table, row: Row, runs: Runs) -> str:
    """Seconds an epoch, and as a multiple of the standard row's (the paper's in brackets)."""
    first, mine = table.rows[0], seconds_per_epoch(runs.get(row.recipe, {}))
    if mine is None or row is first:
        return '' if mine is None else f'{mine:.3g}'
    ratio = time_ratio(runs, row.recipe, first.recipe)
    printed = f' (paper {row.seconds / first.seconds:.2f}x)' if row.seconds and first.seconds else ''
    return f'{mine:.3g}' + (f', {ratio:.2f}x' if ratio else '') + printed


def unrun(table: Table) -> Iterator[str]:
    """A table without runs: the paper's numbers."""
    yield f'**{table.name}.** {table.title}. {table.note}'
    if any(row.paper is not None for row in table.rows):
        first = table.rows[0].recipe
        gains = {row.recipe: table.paper_gain(row, first) for row in table.rows if row.recipe != first}
        rows = [(row.label, paper_score(row), '' if gains.get(row.recipe) is None else f'{gains[row.recipe]:+.2f}',
                 f'`{row.recipe}`') for row in table.rows]
        yield markdown(('row', 'paper', 'difference', 'recipe'), rows)
    else:
        yield 'Recipes: ' + ', '.join(f'`{row.recipe}`' for row in table.rows if row.recipe in RECIPES)


def pictures(figures: list[Path]) -> Iterator[str]:
    """The figures."""
    if figures:
        yield '## Figures'
    for path in figures:
        yield f'{caption(path.stem)}\n\n![{caption(path.stem)}](figures/{path.name})'


def markdown(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table without columns that are empty throughout."""
    kept = [at for at in range(len(columns)) if at == 0 or any(row[at] for row in rows)]
    lines = [[columns[at] for at in kept], ['---'] * len(kept), *([row[at] for at in kept] for row in rows)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
