"""From records to comparisons: which runs may be averaged, and which pairs may be compared."""

from dataclasses import dataclass
from statistics import median
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Optional

from studies import stats, unseen
from studies.jobs import Job, trained
from studies.recipes import RECIPES
from studies.tables import Contrast, Row, Table

Record = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Record]]  # recipe -> seed -> record


class Condition(NamedTuple):
    """What runs must have in common to be compared."""

    scale: float
    precision: str
    device: str

    @property
    def text(self) -> str:
        """In words, such as 'schedule x 0.5, bf16, CPU'."""
        schedule = '' if self.scale == 1 else f'schedule x {self.scale:g}, '
        return f'{schedule}{"fp32" if self.precision == "no" else self.precision}, {self.device}'


def condition(record: Record) -> Condition:
    """A record's condition. All GPUs count as one kind of device: data order and arithmetic are the same."""
    device = 'CPU' if record['device'] == 'cpu' else 'GPU'
    return Condition(record['epochs_scale'], record['mixed_precision'], device)


def is_current(record: Record) -> bool:
    """Whether the recipe still has the options of the run, but for those that only score more."""
    recipe = RECIPES.get(record['recipe'])
    if recipe is None:
        return False
    return trained(record['options']) == trained(Job(recipe, record['seed'], record['epochs_scale']).options)


def by_condition(found: Iterable[Record]) -> dict[Condition, dict[str, dict[int, Record]]]:
    """Groups current records by condition, recipe and seed."""
    groups: dict[Condition, dict[str, dict[int, Record]]] = {}
    for record in found:
        if is_current(record):
            groups.setdefault(condition(record), {}).setdefault(record['recipe'], {})[record['seed']] = record

    def full_schedule_first(where: Condition):
        return -where.scale, where.precision, where.device

    return {where: groups[where] for where in sorted(groups, key=full_schedule_first)}


def stale(found: Iterable[Record]) -> list[str]:
    """Names of the records that are left out, because their recipe has changed."""
    return [record['name'] for record in found if not is_current(record)]


def values(runs: Mapping[int, Record], metric: str) -> dict[int, float]:
    """A metric by seed, where it was measured.

    Args:
        runs: Records by seed.
        metric: A key of records, or of `unseen.METRICS`.
    """
    derive = unseen.METRICS.get(metric)
    found = {seed: derive(record) if derive else record.get(metric) for seed, record in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None}


@dataclass(frozen=True)
class Comparison:
    """A row compared with another one.

    Attributes:
        row: The row.
        other: Recipe of the other one.
        paper: The paper's difference.
        difference: Ours, in the table's metric.
        verdict: What became of the claim, if there is one.
        loss: Difference in the loss on the same split.
        validation: Difference in the same metric on the validation split.
    """

    row: Row
    other: str
    paper: Optional[float]
    difference: Optional[stats.Difference]
    verdict: Optional[str]
    loss: Optional[stats.Difference] = None
    validation: Optional[stats.Difference] = None

    @property
    def more(self) -> Optional[str]:
        """How many more pairs an undecided claim needs, in words; None for any other.

        Fewer than three pairs say nothing about how many it takes, only that more are needed.
        """
        if self.verdict != stats.UNDECIDED:
            return None
        if self.difference.n < stats.FEWEST_PAIRS:
            return f'at least {stats.FEWEST_PAIRS - self.difference.n}'
        count = stats.more_pairs(self.difference)
        return f'over {stats.MOST_SEEDS}' if count is None else str(count)

    @property
    def paper_inside(self) -> Optional[bool]:
        """Whether the paper's difference lies inside our interval; None without either."""
        found = self.difference
        if self.paper is None or found is None or found.low is None:
            return None
        return found.low <= self.paper <= found.high


def paired(runs: Runs, recipe: str, other: str, metric: str) -> Optional[stats.Difference]:
    """The paired difference of two recipes in a metric."""
    return stats.paired(values(runs.get(recipe, {}), metric), values(runs.get(other, {}), metric))


def compare(table: Table, row: Row, runs: Runs, scale: float = 1.0) -> Iterator[Comparison]:
    """A row's comparisons. A shortened schedule tests no claim, and is not compared with the paper."""
    if not table.compared:
        return
    for other in table.against(row):
        paper = table.paper_gain(row, other) if scale == 1 else None
        claim = table.claim(row, other) if scale == 1 else None
        difference = paired(runs, row.recipe, other, table.metric)
        yield Comparison(
            row,
            other,
            paper,
            difference,
            stats.verdict(difference, claim),
            loss=paired(runs, row.recipe, other, table.loss),
            validation=paired(runs, row.recipe, other, table.validation),
        )


def contrast(runs: Runs, one: Contrast, metric: str) -> Optional[stats.Difference]:
    """A contrast in a metric."""
    return stats.contrast(terms(runs, one.weights, metric), one.confidence)


def terms(runs: Runs, weights: Mapping[str, float], metric: str) -> list[tuple[float, dict[int, float]]]:
    """Factors of recipes with their values by seed, as `stats.contrast` takes them."""
    return [(factor, values(runs.get(recipe, {}), metric)) for recipe, factor in weights.items()]


def contrasts(table: Table, runs: Runs) -> Iterator[tuple[Contrast, list[Optional[stats.Difference]]]]:
    """A table's contrasts, where all rows were run: in its metric, in the loss, and on the validation split."""
    for one in table.contrasts:
        found = [contrast(runs, one, metric) for metric in (table.metric, table.loss, table.validation)]
        if found[0] is not None:
            yield one, found


def seconds_per_epoch(runs: Mapping[int, Record]) -> Optional[float]:
    """Median over a recipe's runs."""
    found = values(runs, 'seconds_per_epoch')
    return median(found.values()) if found else None


def time_ratio(runs: Runs, recipe: str, base: str) -> Optional[float]:
    """Seconds per epoch relative to another recipe's.

    Returns:
        None unless all runs of both had the same device and threads, and ran one at a time.
    """
    both = [record for name in (recipe, base) for record in runs.get(name, {}).values()]
    hardware = {(record['device'], record['threads']) for record in both}
    if len(hardware) != 1 or any(record['jobs'] > 1 for record in both):
        return None
    mine, other = seconds_per_epoch(runs.get(recipe, {})), seconds_per_epoch(runs.get(base, {}))
    return mine / other if mine and other else None


def conditions_of(table: Table, groups: Mapping[Condition, Runs]) -> list[tuple[Condition, Runs]]:
    """The conditions under which any row of a table was run."""
    names = {row.recipe for row in table.rows}
    return [(where, runs) for where, runs in groups.items() if names & runs.keys()]
