"""What a table is: rows, the rows they are compared with, and what the paper says of them."""

from dataclasses import dataclass
from typing import Mapping, Optional

CLEAR = 0.15  # points; the paper's own standard deviations are 0.06 to 0.33


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        recipe: Name of a recipe.
        label: As printed.
        paper: The paper's number, in the table's metric.
        spread: Its standard deviation, where the paper gives one.
        seconds: The paper's seconds per epoch.
        against: Recipes to compare with, instead of the table's first row.
        claim: 1 or -1 if this row is expected to be better or worse than the rows it is compared with; 0 if nothing is
            expected; None if the paper's numbers decide, where they differ by at least `CLEAR`.
    """

    recipe: str
    label: str
    paper: Optional[float] = None
    spread: Optional[float] = None
    seconds: Optional[float] = None
    against: Optional[tuple[str, ...]] = None
    claim: Optional[int] = None


@dataclass(frozen=True)
class Contrast:
    """A question that several rows answer together, by a weighted sum per seed.

    Attributes:
        label: As printed.
        weights: Factor of each recipe.
        confidence: Level of its intervals, which the label states if it is not 95%.
    """

    label: str
    weights: Mapping[str, float]
    confidence: float = 0.95


@dataclass(frozen=True)
class Table:
    """Rows that are compared. The first row is the baseline.

    Attributes:
        name: As on the command line.
        title: As printed.
        rows: The baseline first.
        metric: Key of a run's record, or 'unseen_top1' (`studies/unseen.py`), in percent; more is better.
        note: A sentence for the report.
        protocol: 'paper', 'small' (ours, on 5,000 images) or 'other'; verdicts are counted per protocol.
        bars: Whether the report draws it as a bar chart.
        compared: Whether differences are tested at all.
        timed: Whether seconds are compared, among runs with the same hardware and the same share of it.
        contrasts: Questions that several rows answer together.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    metric: str = 'test_top1'
    note: str = ''
    protocol: str = 'paper'
    bars: bool = False
    compared: bool = True
    timed: bool = False
    contrasts: tuple[Contrast, ...] = ()

    @property
    def loss(self) -> str:
        """Key of the loss on the same split."""
        return self.metric.replace('top1', 'loss')

    @property
    def validation(self) -> str:
        """Key of the same accuracy on the validation split; empty if there is none."""
        return {'test_top1': 'val_top1', 'unseen_top1': 'val_top1'}.get(self.metric, '')

    def row(self, recipe: str) -> Row:
        """The row of a recipe."""
        return next(row for row in self.rows if row.recipe == recipe)

    def against(self, row: Row) -> tuple[str, ...]:
        """The recipes that a row is compared with."""
        if row.against is not None:
            return row.against
        first = self.rows[0].recipe
        return () if row.recipe == first else (first,)

    def claim(self, row: Row, other: str) -> Optional[int]:
        """The claim about a row and another one: 1 for better, -1 for worse, None for no claim."""
        if row.claim is not None:
            return row.claim or None
        gain = self.paper_gain(row, other)
        if gain is None or abs(gain) < CLEAR:
            return None
        return 1 if gain > 0 else -1

    def paper_gain(self, row: Row, other: str) -> Optional[float]:
        """The paper's difference between a row and another one."""
        paper = next((each.paper for each in self.rows if each.recipe == other), None)
        if row.paper is None or paper is None:
            return None
        return round(row.paper - paper, 4)
