"""What a model says of each image of a split, and the file that holds it."""

from typing import NamedTuple, Sequence

import numpy as np
import torch

from timm_alfa.data.datasets.base import Source
from timm_alfa.training.metrics import ranked_classes
from timm_alfa.training.report.output_file import write_table
from timm_alfa.utils.distributed import gather


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


def top_classes(output: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The most probable classes of each image, and their probabilities, both (batch, most).

    Args:
        output: Logits, (batch, classes).
        most: At most the number of classes.
    """
    classes = ranked_classes(output, most)
    return classes, output.detach().float().softmax(-1).gather(1, classes)


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
        classes, probabilities = top_classes(output, 1)
        self._batches.append((indices.clone(), target.cpu(), classes[:, 0].cpu(), probabilities[:, 0].cpu()))

    def gather(self, accelerator) -> Predictions:
        """The answers of all processes. Every process calls it."""
        nothing = (torch.empty(0, dtype=torch.int64),) * 3 + (torch.empty(0),)
        return Predictions(*gather_in_order(accelerator, self._batches, nothing))


def gather_in_order(
    accelerator, batches: list[tuple[torch.Tensor, ...]], nothing: tuple[torch.Tensor, ...]
) -> list[np.ndarray]:
    """The columns of all processes' batches, sorted by the first of them. Every process calls it.

    Args:
        batches: Of this process: columns on the CPU.
        nothing: Columns of a batch without images: what is returned if no image could be read.
    """
    columns = [torch.cat(column).numpy() for column in zip(nothing, *gather(accelerator, batches), strict=True)]
    order = np.argsort(columns[0])
    return [column[order] for column in columns]


def class_names(source: Source, num_classes: int) -> list[str]:
    """A name for each class of a model: its number where the data do not name it."""
    names = list(source.class_names[:num_classes])
    return names + [str(index) for index in range(len(names), num_classes)]


def write_predictions(path: str, found: Predictions, source: Source, names: Sequence[str]) -> None:
    """Writes one row per image: path or index, label, prediction, probability.

    Raises:
        ConfigError: It cannot be written.
    """
    columns = {
        'image': [source.image_name(int(index)) for index in found.indices],
        'label': [names[label] for label in found.labels],
        'prediction': [names[predicted] for predicted in found.predicted],
        'probability': found.probabilities,
    }
    write_table('--predictions', path, columns)
