"""The cells of the report's tables."""

from typing import Iterator, Optional, Sequence

from studies import stats
from studies.compare import Comparison, Runs, compare, seconds_per_epoch, time_ratio, values
from studies.formats import difference, score
from studies.recipes import RECIPES
from studies.tables import Row, Table
from timm_alfa.utils.markdown import markdown_table

ROW_COLUMNS = (
    'row',
    'paper',
    'ours',
    'n',
    'compared with',
    "paper's difference",
    'our difference [95% CI]',
    'pairs',
    'verdict',
    'more pairs',
    'paper inside',
    'loss',
    'validation',
    's/epoch',
)
CLAIM_COLUMNS = (
    'table',
    'claim',
    "paper's difference",
    'our difference [95% CI]',
    'pairs',
    'verdict',
    'paper inside',
    'condition',
)
CONTRAST_COLUMNS = ('several rows together', 'points [95% CI]', 'loss', 'validation', 'seeds')
PAPER_COLUMNS = ('row', 'paper', 'difference', 'recipe')


def table_without_empty_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that leaves out columns in which every cell is empty, except for the first."""
    kept = [at for at in range(len(columns)) if at == 0 or any(row[at] for row in rows)]
    return markdown_table([columns[at] for at in kept], [[row[at] for at in kept] for row in rows])


def row_cells(table: Table, row: Row, runs: Runs, scale: float) -> Iterator[tuple[str, ...]]:
    """A row's lines under `ROW_COLUMNS`: one per comparison, the first with the row's score."""
    found = stats.sample(list(values(runs.get(row.recipe, {}), table.metric).values()))
    paper = paper_score(row) if scale == 1 else ''
    if found is None:
        head = (row.label, paper, 'not run', '')
    else:
        head = (row.label, paper, score(found), _seed_count(found.n, RECIPES[row.recipe].seeds))
    seconds = time_cell(table, row, runs) if table.timed else ''

    comparisons = [c for c in compare(table, row, runs, scale) if c.difference is not None or c.paper is not None]
    if not comparisons:
        yield (*head, *[''] * 9, seconds)
    for at, comparison in enumerate(comparisons):
        cells = comparison_cells(table, comparison)
        yield (*head, *cells, seconds) if at == 0 else (*[''] * 4, *cells, '')


def _seed_count(n: int, planned: int) -> str:
    return str(n) if n == planned else f'{n}/{planned}'


def comparison_cells(table: Table, found: Comparison) -> tuple[str, ...]:
    """The cells from 'compared with' to 'validation'."""
    ours, inside = found.difference, found.paper_inside
    return (
        table.row(found.other).label,
        '' if found.paper is None else f'{found.paper:+.2f}',
        difference(ours),
        '' if ours is None else str(ours.n),
        found.verdict or '',
        found.more or '',
        _yes_or_no(inside),
        difference(found.loss, 3),
        difference(found.validation),
    )


def _yes_or_no(value: Optional[bool]) -> str:
    return {None: '', True: 'yes', False: 'no'}[value]


def claim_cells(table: Table, found: Comparison, link: str, condition: str) -> tuple[str, ...]:
    """A claim's line under `CLAIM_COLUMNS`."""
    _, paper, ours, pairs, verdict, _, inside, *_ = comparison_cells(table, found)
    word = 'above' if table.claim(found.row, found.other) > 0 else 'below'
    claim = f'{found.row.label} {word} {table.row(found.other).label}'
    return link, claim, paper, ours, pairs, f'**{verdict}**', inside, condition


def paper_score(row: Row) -> str:
    """The paper's number, its standard deviation and its seconds."""
    if row.paper is None:
        return ''
    spread = '' if row.spread is None else f' ± {row.spread:.2f}'
    seconds = '' if row.seconds is None else f' ({row.seconds:g} s)'
    return f'{row.paper:.2f}{spread}{seconds}'


def time_cell(table: Table, row: Row, runs: Runs) -> str:
    """Seconds per epoch, and their ratio to the baseline's, with the paper's ratio in parentheses."""
    first, mine = table.rows[0], seconds_per_epoch(runs.get(row.recipe, {}))
    if mine is None:
        return ''
    cell = f'{mine:.3g}'
    if row is first:
        return cell
    ratio = time_ratio(runs, row.recipe, first.recipe)
    if ratio:
        cell += f', {ratio:.2f}x'
    if row.seconds and first.seconds:
        cell += f' (paper {row.seconds / first.seconds:.2f}x)'
    return cell
