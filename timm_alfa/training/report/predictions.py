"""What a model says of each image of a split, and the file that holds it."""

from pathlib import Path
from typing import Any, NamedTuple, Sequence, Union

import numpy as np
import torch

from timm_alfa.data.datasets.base import Source
from timm_alfa.errors import ConfigError
from timm_alfa.utils.distributed import gather
from timm_alfa.utils.files import atomic_file

FORMATS = ('.csv', '.parquet')


class Predictions(NamedTuple):
    """One entry per image, in the order of the source.

    Attributes:
        indices: Of the images in their source.
        labels: Class indices.
        predicted: The most probable classes.
        probabilities: Of those classes.
    """

    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray


class Collector:
    """Collects the answers of this process's batches."""

    def __init__(self):
        self._batches: list[tuple[torch.Tensor, ...]] = []

    def add(self, indices: torch.Tensor, output: torch.Tensor, target: torch.Tensor) -> None:
        """Adds a batch.

        Args:
            indices: Of its images in their source, (batch,) int64.
            output: Logits, (batch, classes).
            target: Class indices, (batch,).
        """
        logits = output.detach().float()
        # the first of timm's top five, which decides ties as in its accuracies
        classes = logits.topk(min(5, logits.shape[-1]), dim=-1).indices[:, :1]
        probabilities = logits.softmax(-1).gather(1, classes)
        self._batches.append((indices.clone(), target.cpu(), classes[:, 0].cpu(), probabilities[:, 0].cpu()))

    def gather(self, accelerator) -> Predictions:
        """The answers of all processes. Every process calls it."""
        batches = gather(accelerator, self._batches)
        nothing = (torch.empty(0, dtype=torch.int64),) * 3 + (torch.empty(0),)  # if no image could be read
        columns = [torch.cat(column).numpy() for column in zip(nothing, *batches, strict=True)]
        order = np.argsort(columns[0])
        return Predictions(*(column[order] for column in columns))


def class_names(source: Source, num_classes: int) -> list[str]:
    """A name for each class of a model: its number where the data do not name it."""
    names = list(source.class_names[:num_classes])
    return names + [str(index) for index in range(len(names), num_classes)]


def check_predictions_file(path: Union[str, Path]) -> None:
    """Checks that predictions can be written to a file.

    Raises:
        ConfigError: Its name has another ending, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ConfigError(f"--predictions is '{path}': its name must end in {' or '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--predictions is '{path}', but the folder '{path.parent}' does not exist: create it first.")


def write_predictions(path: Union[str, Path], found: Predictions, source: Source, names: Sequence[str]) -> None:
    """Writes one row per image: path or index, label, prediction, probability.

    Raises:
        ConfigError: It cannot be written.
    """
    import pyarrow

    path = Path(path)
    table = pyarrow.table(
        {
            'image': [source.image_name(int(index)) for index in found.indices],
            'label': [names[label] for label in found.labels],
            'prediction': [names[predicted] for predicted in found.predicted],
            'probability': found.probabilities,
        }
    )
    try:
        with atomic_file(path) as temporary:
            _write(table, path.suffix, temporary)
    except OSError as error:
        raise ConfigError(f"--predictions '{path}' cannot be written: {error.strerror or error}.") from error


def _write(table: Any, suffix: str, path: Path) -> None:
    if suffix == '.csv':
        from pyarrow.csv import write_csv

        write_csv(table, path)
    else:
        from pyarrow.parquet import write_table

        write_table(table, path)
