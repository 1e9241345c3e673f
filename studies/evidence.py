"""From records to what each table shows: runs that may be averaged, and pairs that may be compared."""
from dataclasses import dataclass
from statistics import median
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Optional

from studies import records, stats
from studies.jobs import Job
from studies.rows import RECIPES
from studies.tables import Contrast, Row, Table


class Condition(NamedTuple):
    """What runs share that are compared: never are two of these mixed."""
    scale: float
    precision: str
    device: str

    @property
    def text(self) -> str:
        schedule = '' if self.scale == 1 else f'schedule x {self.scale:g}, '
        return f"{schedule}{'fp32' if self.precision == 'no' else self.precision}, {self.device}"


Runs = Mapping[str, Mapping[int, dict[str, Any]]]  # recipe -> seed -> record


def condition(record: Mapping[str, Any]) -> Condition:
    """A record's condition; all GPUs are one kind of device, since order and arithmetic are the same."""
    return Condition(record['epochs_scale'], record['mixed_precision'], 'CPU' if record['device'] == 'cpu' else 'GPU')


def is_current(record: Mapping[str, Any]) -> bool:
    """Whether the recipe still has the options that the run was made with."""
    recipe = RECIPES.get(record['recipe'])
    if recipe is None:
        return False
    return record['options'] == Job(recipe, record['seed'], record['epochs_scale']).options


def by_condition(found: Iterable[dict[str, Any]]) -> dict[Condition, dict[str, dict[int, dict[str, Any]]]]:
    """Records sorted apart: condition, recipe, seed; those of options that no recipe has any more are left out."""
    groups: dict[Condition, dict[str, dict[int, dict[str, Any]]]] = {}
    for record in found:
        if is_current(record):
            groups.setdefault(condition(record), {}).setdefault(record['recipe'], {})[record['seed']] = record
    return dict(sorted(groups.items(), key=lambda item: (-item[0].scale, *item[0][1:])))


def stale(found: Iterable[dict[str, Any]]) -> list[str]:
    """Names of records that are left out."""
    return [record['name'] for record in found if not is_current(record)]


def values(runs: Mapping[int, Mapping[str, Any]], metric: str) -> dict[int, float]:
    """A metric by seed, where it was measured."""
    return {seed: record[metric] for seed, record in runs.items() if record.get(metric) is not None}


@dataclass(frozen=True)
class Comparison:
    """A row against another one: in the table's metric, in the loss on the test split, and on the validation split."""
    row: Row
    other: str
    paper: Optional[float]
    difference: Optional[stats.Difference]
    verdict: Optional[str]
    loss: Optional[stats.Difference] = None
    validation: Optional[stats.Difference] = None

    @property
    def more(self) -> Optional[str]:
        """How many more pairs are needed, in words; None unless undecided.

        What fewer than three pairs look like says nothing of how many it takes: only that it takes more.
        """
        if self.verdict != stats.UNDECIDED:
            return None
        if self.difference.n < stats.FEWEST_PAIRS:
            return f'at least {stats.FEWEST_PAIRS - self.difference.n}'
        count = stats.more_pairs(self.difference)
        return f'over {stats.MOST_SEEDS}' if count is None else str(count)

    @property
    def paper_inside(self) -> Optional[bool]:
        """Whether the paper's difference lies within our interval."""
        found = self.difference
        if self.paper is None or found is None or found.low is None:
            return None
        return found.low <= self.paper <= found.high


def compare(table: Table, row: Row, runs: Runs, scale: float = 1.0) -> Iterator[Comparison]:
    """A row's comparisons; a schedule that was shrunk tests no claim, the paper's least of all."""
    for other in table.against(row) if table.compared else ():
        if scale == 1:
            paper, claim = table.paper_gain(row, other), table.claim(row, other)
        else:
            paper = claim = None
        difference, loss, validation = (
            stats.paired(*(values(runs.get(recipe, {}), metric) for recipe in (row.recipe, other)))
            for metric in (table.metric, table.loss, table.validation))
        yield Comparison(row, other, paper, difference, stats.verdict(difference, claim), loss, validation)


def contrasts(table: Table, runs: Runs) -> Iterator[tuple[Contrast, list[Optional[stats.Difference]]]]:
    """What a table's rows say together, where all were run: in its metric, in loss, and on the validation split."""
    for one in table.contrasts:
        found = [
            stats.contrast([(factor, values(runs.get(recipe, {}), metric)) for recipe, factor in one.weights.items()])
            for metric in (table.metric, table.loss, table.validation)]
        if found[0] is not None:
            yield one, found


def seconds_per_epoch(runs: Mapping[int, Mapping[str, Any]]) -> Optional[float]:
    """Median over the runs of a row."""
    found = values(runs, 'seconds_per_epoch')
    return median(found.values()) if found else None


def time_ratio(runs: Runs, recipe: str, base: str) -> Optional[float]:
    """Seconds an epoch over another row's; None unless all runs of both had the same device and threads, alone."""
    both = [record for name in (recipe, base) for record in runs.get(name, {}).values()]
    if len({(record['device'], record['threads']) for record in both}) != 1 or any(r['jobs'] > 1 for r in both):
        return None
    mine, other = seconds_per_epoch(runs.get(recipe, {})), seconds_per_epoch(runs.get(base, {}))
    return mine / other if mine and other else None


def conditions_of(table: Table, groups: Mapping[Condition, Runs]) -> list[tuple[Condition, Runs]]:
    """Conditions under which any row of a table was run."""
    names = {row.recipe for row in table.rows}
    return [(where, runs) for where, runs in groups.items() if names & runs.keys()]


def load(folder=records.RUNS):
    """All records, and those in use by condition."""
    found = records.load_all(folder)
    return found, by_condition(found)
