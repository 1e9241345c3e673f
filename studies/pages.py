"""results/report.md: everything that was run, next to the paper's numbers."""

from collections import Counter
from typing import Iterator, Mapping, Sequence

from studies import stats
from studies.cells import (
    CLAIM_COLUMNS,
    CONTRAST_COLUMNS,
    PAPER_COLUMNS,
    ROW_COLUMNS,
    claim_cells,
    paper_score,
    row_cells,
    table_without_empty_columns,
)
from studies.compare import Condition, Runs, compare, conditions_of, contrasts
from studies.figures import Figure
from studies.formats import commits, devices, difference, plural, seed_ranges
from studies.generated import stamped
from studies.precision import precision
from studies.tables import TABLES, Table

Groups = Mapping[Condition, Runs]

HEAD = """# All results

Written by `python studies/report.py` from the records in `runs/`; `python studies/run.py TABLE` adds runs. What was
found is summarized in [README.md](README.md).

How to read this page:

- Unless a table says otherwise, scores are top-1 accuracy on the test split, in percent. The test split is read once
  per run, with the checkpoint that was best on the validation split. Scores are mean ± standard deviation over n seeds;
  "2/6" means two seeds of six planned. A seed determines the initial weights, the order of the images, and which images
  are held out or left out; the test images are always the same.
- Differences are paired: runs with the same seed start from the same weights and see the same images in the same order.
  Intervals are Student's t, 95%, over seeds, for each difference separately, from three pairs on. "loss" is the
  difference in mean cross-entropy on the same images as the score: lower is better, and it varies less than accuracy.
  "validation" is the difference in points on the validation split, with the same checkpoints, which were selected on
  that split; each seed draws other validation images. Verdicts use the table's score; where it and the validation split
  disagree, trust neither.
- A claim is a direction. It is **held** or **not held** if the interval lies on one side of zero, and **undecided**
  if it contains zero or there are fewer than three pairs. "paper inside", for rows with a number in the paper, says
  whether the paper's difference lies inside our interval: a real gain may be smaller than the paper's, and an undecided
  one may still exclude the paper's size.
- "more pairs" is how many more pairs an undecided claim needs for a power of 0.8, if its difference and standard
  deviation are what they look like now. With few pairs this is a rough guess. Adding seeds until a verdict is reached
  makes false verdicts more frequent than 5%; an n above its plan ("8/6") shows where seeds were added.
- Of N claims without any effect, 0.025 N would be held by chance, and the rows of a table share their baseline runs:
  a single verdict among many means little.
- Schedules, precisions, protocols and kinds of device are never mixed: each has its own table. Seconds are shown in
  tables about time, and compared among runs with the same device and number of threads that ran one at a time.
- The command in a record (`reproduce`) names the recipe's file at the commit of the run; recipes have moved since, so
  `small_alfa` is now `recipes/small/alfa.yaml`.
"""
PROTOCOLS = dict(paper="The paper's protocol", small='The small-data protocol', other='Other protocols')


def page(groups: Groups, left_out: Sequence[str], figures: Sequence[Figure]) -> str:
    """The whole page.

    Args:
        groups: Runs by condition.
        left_out: Names of records whose recipe has changed since.
        figures: The figures in results/figures.
    """
    run = [table for table in TABLES.values() if conditions_of(table, groups)]
    not_run = [table for table in TABLES.values() if table not in run]

    parts = [HEAD, *summary(run, groups)]
    for table in run:
        parts += section(table, groups)
    if figures:
        parts += [
            '## Figures',
            *(f'![{figure.name}](figures/{figure.name}.png)\n\n{figure.caption}' for figure in figures),
        ]
    if not_run:
        parts += ['## Not run yet', "`python studies/run.py NAME` runs a table. The numbers are the paper's."]
        for table in not_run:
            parts += paper_section(table)
    if left_out:
        names = ', '.join(f'`{name}`' for name in left_out)
        parts += ['## Left out', f'Runs whose recipe has changed since: {names}']
    body = '\n\n'.join(part.rstrip() for part in parts if part.strip()) + '\n'
    return stamped(body, 'results/runs/', '<!-- {} -->')


def summary(tables: Sequence[Table], groups: Groups) -> Iterator[str]:
    """The verdicts under each protocol."""
    yield '## Verdicts'
    for protocol in ('paper', 'small'):
        rows = list(verdicts([table for table in tables if table.protocol == protocol], groups))
        yield f'{PROTOCOLS[protocol]}: {tally(rows)}{effort(protocol, groups)}'
        if rows:
            yield table_without_empty_columns(CLAIM_COLUMNS, rows)


def verdicts(tables: Sequence[Table], groups: Groups) -> Iterator[tuple[str, ...]]:
    """A line for each claim that was tested. What several tables claim counts once."""
    seen = set()
    for table in tables:
        for where, runs in conditions_of(table, groups):
            for row in table.rows:
                for found in compare(table, row, runs, where.scale):
                    key = (where, table.metric, row.recipe, found.other, table.claim(row, found.other))
                    if found.verdict and key not in seen:
                        seen.add(key)
                        yield claim_cells(table, found, f'[{table.name}](#{anchor(table)})', where.text)


def tally(rows: Sequence[tuple[str, ...]]) -> str:
    """How many claims held."""
    if not rows:
        return 'no claim has been tested at its full schedule yet.'
    pairs, verdict = CLAIM_COLUMNS.index('pairs'), CLAIM_COLUMNS.index('verdict')
    counts = Counter(row[verdict].strip('*') for row in rows)
    enough = sum(int(row[pairs]) >= stats.FEWEST_PAIRS for row in rows)
    shown = ', '.join(f'{counts[name]} {name}' for name in (stats.HELD, stats.NOT_HELD, stats.UNDECIDED))
    return f'{shown}. By chance alone {0.025 * enough:.1f} of the {enough} claims with enough pairs would be held.'


def effort(protocol: str, groups: Groups) -> str:
    """How many runs a protocol's tables rest on, each counted once, and how long they took."""
    recipes = {row.recipe for table in TABLES.values() if table.protocol == protocol for row in table.rows}
    found = []
    for runs in groups.values():
        for recipe in recipes & runs.keys():
            found += runs[recipe].values()
    if not found:
        return ''
    hours = sum(record['seconds'] for record in found) / 3600
    return f' {plural(len(found), "run")}, {hours:.1f} hours of {devices(found)}.'


def anchor(table: Table) -> str:
    """A table's heading, fit for a link."""
    return table.name.replace('_', '-')


def section(table: Table, groups: Groups) -> Iterator[str]:
    """A table that was run, under each condition."""
    yield f'## {anchor(table)}'
    yield f'{table.title} (`{table.name}`). {table.note}'
    for where, runs in conditions_of(table, groups):
        yield f'{PROTOCOLS[table.protocol]}, {where.text}: {provenance(table, runs)}.'
        rows = [cells for row in table.rows for cells in row_cells(table, row, runs, where.scale)]
        yield table_without_empty_columns(ROW_COLUMNS, rows)

        together = []
        for one, (found, loss, validation) in contrasts(table, runs):
            together.append((one.label, difference(found), difference(loss, 3), difference(validation), str(found.n)))
        if together:
            yield table_without_empty_columns(CONTRAST_COLUMNS, together)
        yield from precision(table, runs)


def provenance(table: Table, runs: Runs) -> str:
    """Which runs a table rests on."""
    found = [record for row in table.rows for record in runs.get(row.recipe, {}).values()]
    seeds = {record['seed'] for record in found}
    hours = sum(record['seconds'] for record in found) / 3600
    versions = {f'torch {record["versions"]["torch"]}, timm {record["versions"]["timm"]}' for record in found}
    return (
        f'{plural(len(found), "run")}, seeds {seed_ranges(seeds)}, {hours:.1f} hours in total, each on '
        f'{devices(found)}; {"; ".join(sorted(versions))}; {commits(found)}'
    )


def paper_section(table: Table) -> Iterator[str]:
    """A table that was not run: the paper's numbers, or its recipes if there are none."""
    yield f'**{table.name}.** {table.title}. {table.note}'
    if all(row.paper is None for row in table.rows):
        yield 'Recipes: ' + ', '.join(f'`{row.recipe}`' for row in table.rows)
        return
    first = table.rows[0]
    rows = []
    for row in table.rows:
        gain = None if row is first else table.paper_gain(row, first.recipe)
        rows.append((row.label, paper_score(row), '' if gain is None else f'{gain:+.2f}', f'`{row.recipe}`'))
    yield table_without_empty_columns(PAPER_COLUMNS, rows)
