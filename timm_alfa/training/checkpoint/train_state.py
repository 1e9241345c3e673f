"""Where a run stands: position, epochs done, best so far."""

from dataclasses import asdict, dataclass, field
from typing import Any, Optional


@dataclass
class TrainState:
    """All of a run that is neither weights nor options; JSON holds it exactly.

    Attributes:
        epoch: Index of the epoch at hand, or of the next one.
        batch: Batches of it that are done, a process.
        updates: Updates done, skipped ones included: what the schedule counts.
        rows: The rows of summary.csv.
        best_epoch: Of the best checkpoint, counted from 1 as in summary.csv; 0 before there is one.
        best_sha256: Of the best weights' file.
        skipped_updates: Updates left out because a loss was not finite, and their images.
        bad_in_a_row: The latest of them that followed one another.
        lr: Learning rate of the latest update.
        seconds: Time of the whole run so far, all its stretches together.
        epoch_seconds: Training time of the epoch at hand, and its images so far.
        commits: Of the code, that took part, in order; states from before there was this list have none.
        command: Words of the command line that began the run; after a state from before this was kept, of the one
            that went on.
        continued: Commands that went on with other options, and after how many epochs.
        test_reads: How often the test split has been scored: once each time that the run had ended.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_sha256: Optional[str] = None
    skipped_updates: int = 0
    skipped_images: int = 0
    bad_in_a_row: int = 0
    lr: float = 0.0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    epoch_images: int = 0
    commits: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    continued: list[dict[str, Any]] = field(default_factory=list)
    test_reads: int = 0

    def forget_best(self) -> None:
        """The next epoch is the best so far."""
        self.best_epoch, self.best, self.best_sha256 = 0, {}, None

    def add_commit(self, commit: Optional[str]) -> None:
        """Notes the commit that a stretch of the run begins with."""
        if commit is not None and commit not in self.commits:
            self.commits.append(commit)

    @property
    def commit(self) -> Optional[str]:
        """The commit that trained, or several in one text."""
        return ', '.join(self.commits) or None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
