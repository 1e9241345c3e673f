"""How the best checkpoint is chosen, and when training ends early."""

import math
from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from timm_alfa.options import option


class Metric(NamedTuple):
    """What a checkpoint may be chosen by.

    Attributes:
        title: In messages.
        column: Of summary.csv.
        sign: 1 if more is better, -1 if less is.
    """

    title: str
    column: str
    sign: int


METRICS = {
    'top1': Metric('top-1', 'val_top1', 1),
    'loss': Metric('loss', 'val_loss', -1),
    'balanced_accuracy': Metric('balanced accuracy', 'val_balanced_accuracy', 1),
    'macro_f1': Metric('macro F1', 'val_macro_f1', 1),
}


@dataclass(frozen=True)
class SelectionConfig:
    """Which checkpoint is the best one, how many of the best are kept, and when none is expected any more."""

    eval_metric: str = option('top1', 'validation metric that the best checkpoint is chosen by', choices=tuple(METRICS))
    num_best: int = option(1, 'number of best checkpoints to keep; if more than one, in best/', low=1)
    patience: Optional[int] = option(
        None, 'end training after this many epochs without a better checkpoint (default: train all epochs)', low=1
    )

    @property
    def metric(self) -> Metric:
        """The chosen metric."""
        return METRICS[self.eval_metric]

    def score(self, row: Mapping[str, Any]) -> float:
        """How good an epoch is: more is better. What is not finite is worse than everything.

        Args:
            row: Of summary.csv, or the metrics of the best epoch.
        """
        value = row.get(self.metric.column)
        return self.metric.sign * value if value is not None and math.isfinite(value) else -math.inf

    def best_epochs(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """The epochs whose checkpoints are kept in best/, best first; of equals, the earlier ones."""
        ranked = sorted(rows, key=lambda row: (-self.score(row), row['epoch']))
        return [row['epoch'] for row in ranked[: self.num_best]]
