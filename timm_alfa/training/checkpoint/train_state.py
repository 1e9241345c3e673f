"""Where a run stands: its position, the epochs done, the best one so far."""

from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from timm_alfa.utils.bits import PackedBits


@dataclass
class TrainState:
    """Everything of a run that is neither weights nor options; JSON holds it exactly.

    Attributes:
        epoch: Index of the current epoch, or of the next one.
        batch: Batches of that epoch that are done, per process.
        updates: Updates done, including skipped ones: what the schedule counts.
        rows: The rows of summary.csv.
        best_epoch: Epoch of the best checkpoint, counted from 1 as in summary.csv; 0 before there is one.
        best: Its validation metrics.
        best_correct: Which validation images it classified correctly; None in states from before this was kept.
        best_sha256: Of the file of the best weights.
        skipped_updates: Updates that were skipped because a loss was not finite.
        skipped_images: The images of those updates.
        bad_in_a_row: How many of the latest updates in a row were skipped.
        lr: Learning rate of the latest update.
        seconds: Duration of the whole run so far, over all starts.
        epoch_seconds: Training time of the current epoch so far.
        epoch_images: Images of the current epoch so far.
        commits: Commits of the code that took part, in order; empty in states from before this was kept.
        command: Words of the command line that started the run; in states from before this was kept, of the one that
            resumed it.
        continued: Commands that resumed the run with other options, and after how many epochs.
        wandb_id: What wandb knows the run by, if it ever did.
        test_reads: How often the test split was evaluated: once each time that the run was finished.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    rows: list[dict[str, Optional[float]]] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_correct: Optional[PackedBits] = None
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
    wandb_id: Optional[str] = None

    def __post_init__(self):
        if isinstance(self.best_correct, dict):  # from JSON
            self.best_correct = PackedBits(**self.best_correct)

    def is_over(self, epochs: int, patience: Optional[int]) -> bool:
        """Whether there is nothing left to train.

        Args:
            epochs: Of the run.
            patience: After how many epochs without a better checkpoint it ends; None: never before the last.
        """
        return self.epoch >= epochs or self.is_out_of_patience(patience)

    def is_out_of_patience(self, patience: Optional[int]) -> bool:
        """Whether that many epochs have passed since the best one."""
        return patience is not None and self.best_epoch > 0 and self.epoch - self.best_epoch >= patience

    def forget_best(self) -> None:
        """Makes the next epoch the best one so far."""
        self.best_epoch, self.best, self.best_correct, self.best_sha256 = 0, {}, None, None

    def add_commit(self, commit: Optional[str]) -> None:
        """Notes the commit that the run is started or resumed with."""
        if commit is not None and commit not in self.commits:
            self.commits.append(commit)

    @property
    def commit(self) -> Optional[str]:
        """The commit that trained, or several in one text."""
        return ', '.join(self.commits) or None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
