"""A picture of the images that a model is wrong about with the highest probability."""

from typing import Sequence

import numpy as np

from timm_alfa.data.datasets.base import Source
from timm_alfa.errors import DataError
from timm_alfa.training.report.predictions import Predictions
from timm_alfa.utils.plotting import plot_label

MOST, COLUMNS, SIDE = 25, 5, 224


def confident_mistakes(found: Predictions, most: int = MOST) -> np.ndarray:
    """Positions of the wrong predictions with the highest probabilities, the highest first."""
    wrong = np.flatnonzero(found.labels != found.predicted)
    order = np.argsort(-found.probabilities[wrong], kind='stable')
    return wrong[order][:most]


def draw_mistakes(found: Predictions, source: Source, names: Sequence[str]):
    """The most confident mistakes as a figure, with label, prediction and probability; None if there are none."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    mistakes = confident_mistakes(found)
    if not len(mistakes):
        return None
    columns = min(COLUMNS, len(mistakes))
    rows = -(-len(mistakes) // columns)
    layout = ConstrainedLayoutEngine(h_pad=0.08)  # inches: titles would touch the edge
    figure = Figure(figsize=(2.1 * columns, 2.5 * rows), dpi=110, layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis('off')
    for axis, at in zip(axes, mistakes, strict=False):
        image = _thumbnail(source, int(found.indices[at]))
        if image is not None:
            axis.imshow(image, interpolation='nearest')
        label, predicted = names[found.labels[at]], names[found.predicted[at]]
        title = f'predicted: {plot_label(predicted)}  {100 * found.probabilities[at]:.1f}%\nlabel: {plot_label(label)}'
        axis.set_title(title, fontsize=8)
    return figure


def _thumbnail(source: Source, index: int):
    """An image of the split, small enough for a picture; None if it cannot be read any more."""
    try:
        image = source.image(index, 'RGB')
    except DataError:
        return None
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)
