"""From records to what each table shows: runs that may be averaged, and pairs that may be compared."""
from dataclasses import dataclass
from statistics import median
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Optional

from studies import records, stats
from studies.jobs import Job
from studies.rows import RECIPES
from studies.tables import Row, Table


class Condition(NamedTuple):
    """What runs share that are compared: never are two of these mixed."""
    scale: float
    precision: str
    device: str

    @property
    def text(self) -> str:
        schedule = 'full schedule' if self.scale == 1 else f'schedule x {self.scale:g}'
        return f"{schedule}, {'fp32' if self.precision == 'no' else self.precision}, {self.device}"


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
    """A row against another one."""
    row: Row
    other: str
    paper: Optional[float]
    difference: Optional[stats.Difference]
    verdict: Optional[str]

    @property
    def more(self) -> Optional[str]:
        """How many more pairs are needed, in words; None unless undecided."""
        if self.verdict != stats.UNDECIDED:
            return None
        count = stats.more_pairs(self.difference)
        return f'over {stats.MOST_SEEDS}' if count is None else str(count)

    @property
    def paper_inside(self) -> Optional[bool]:
        """Whether the paper's difference lies within our interval."""
        found = self.difference
        if self.paper is None or found is None or found.low is None:
            return None
        return found.low <= self.paper <= found.high


def compare(table: Table, row: Row, runs: Runs) -> Iterator[Comparison]:
    """A row's comparisons."""
    ours = values(runs.get(row.recipe, {}), table.metric)
    for other in table.against(row) if table.compared else ():
        difference = stats.paired(ours, values(runs.get(other, {}), table.metric))
        yield Comparison(row, other, table.paper_gain(row, other), difference,
                         stats.verdict(difference, table.claim(row, other)))


def seconds_per_epoch(runs: Mapping[int, Mapping[str, Any]]) -> Optional[float]:
    """Median over the runs of a row."""
    found = values(runs, 'seconds_per_epoch')
    return median(found.values()) if found else None


def conditions_of(table: Table, groups: Mapping[Condition, Runs]) -> list[tuple[Condition, Runs]]:
    """Conditions under which any row of a table was run."""
    names = {row.recipe for row in table.rows}
    return [(where, runs) for where, runs in groups.items() if names & runs.keys()]


def load(folder=records.RUNS):
    """All records, and those in use by condition."""
    found = records.load_all(folder)
    return found, by_condition(found)
