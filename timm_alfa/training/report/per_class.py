"""Accuracy, precision and recall of each class, and which classes are confused."""

import csv
import io
from typing import Any, Sequence

import numpy as np

from timm_alfa.training.report.predictions import Predictions
from timm_alfa.utils.plotting import new_figure, plot_label

COLUMNS = ('class', 'images', 'predicted', 'correct', 'accuracy', 'precision', 'recall', 'f1')
_MOST_NAMES, _MOST_NUMBERS = 50, 25  # classes up to which a plot has names, and counts in its cells


def confusion_matrix(found: Predictions, num_classes: int) -> np.ndarray:
    """How often images of class i were predicted as j, (classes, classes) integers."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (found.labels, found.predicted), 1)
    return counts


def per_class(confusion: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row per class, in percent where it is a share; None where there is nothing to divide by.

    `accuracy` is of the class against all others (one versus rest); `recall` is the share of its own images that were
    classified correctly.
    """
    total = int(confusion.sum())
    rows = []
    for index, name in enumerate(names):
        correct = int(confusion[index, index])
        images, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
        wrong = images + predicted - 2 * correct
        values = (
            name,
            images,
            predicted,
            correct,
            _percent(total - wrong, total),
            _percent(correct, predicted),
            _percent(correct, images),
            _percent(2 * correct, images + predicted),
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _percent(part: int, whole: int) -> Any:
    return 100 * part / whole if whole else None


def per_class_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `per_class` as CSV."""
    lines = [[_cell(row[column]) for column in COLUMNS] for row in rows]
    return _csv([COLUMNS, *lines])


def confusion_csv(confusion: np.ndarray, names: Sequence[str]) -> str:
    """A row per class of the labels, a column per predicted class."""
    lines = [[name, *map(int, counts)] for name, counts in zip(names, confusion, strict=True)]
    return _csv([['label / prediction', *names], *lines])


def _cell(value: Any) -> Any:
    if value is None:
        return ''
    return f'{value:.4f}' if isinstance(value, float) else value


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(lines)
    return text.getvalue()


def draw_confusion(confusion: np.ndarray, names: Sequence[str]):
    """The confusion matrix as a figure: each row in percent of the images of its class."""
    count = len(names)
    side = min(4.2 + 0.28 * count, 16)
    figure, (axis,) = new_figure(width=side + 0.6, height=side)
    axis.grid(visible=False)
    shares = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axis.imshow(shares, cmap='Blues', vmin=0, vmax=100)
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.set_label('% of the images of a class')
    axis.set_xlabel('predicted class')
    axis.set_ylabel('class')
    if count <= _MOST_NAMES:
        axis.set_xticks(range(count), [plot_label(name) for name in names], rotation=90, fontsize=8)
        axis.set_yticks(range(count), [plot_label(name) for name in names], fontsize=8)
    if count <= _MOST_NUMBERS:
        _write_counts(axis, confusion, shares)
    return figure


def _write_counts(axis, confusion: np.ndarray, shares: np.ndarray) -> None:
    for row, column in np.argwhere(confusion):
        color = 'white' if shares[row, column] > 55 else 'black'
        axis.text(column, row, confusion[row, column], ha='center', va='center', fontsize=7, color=color)
