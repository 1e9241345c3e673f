"""How a method asks for a plot of its epoch metrics."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class EpochPlot:
    """Columns of `epoch_metrics` over the epochs as lines, and their last values as bars of the same colors.

    Attributes:
        file: Name of the image in the run folder; None: the lines are a part of curves.png, without bars.
        title: What the columns are.
        columns: Names of the columns, in the order of the bars.
        labels: What each column is called.
        xlabel: What the labels are.
        reference: A value that is drawn as a dashed line across the bars.
        reference_label: What it is.
        log: Whether the lines have a logarithmic scale.
    """

    file: Optional[str]
    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    xlabel: str = ''
    reference: Optional[float] = None
    reference_label: str = ''
    log: bool = False
