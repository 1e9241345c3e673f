"""The look that all figures share: those of a run, of the studies, and of the benchmarks."""

import io

from timm_alfa.utils.text import printable

BLUE, ORANGE, GREEN, GRAY = '#2a6fbb', '#d9642c', '#3a8f5b', '#8a8a8a'
SERIES = (BLUE, ORANGE, GREEN, '#8a5fb0', '#b5863a')


def new_figure(columns: int = 1, width: float = 6.4, height: float = 3.6):
    """Makes a figure with axes side by side.

    It is made without pyplot: no backend is chosen, and nothing has to be closed.

    Args:
        columns: Number of axes.
        width: Of the figure, in inches.
        height: Of the figure, in inches.

    Returns:
        The figure, and a list of its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout='constrained')
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for axis in axes:
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(axis='y', color='#e6e6e6', linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def add_legend(axis, **options) -> None:
    """Adds a legend; options as for matplotlib."""
    axis.legend(**{'frameon': False, 'fontsize': 8, **options})


def plot_label(text: str, most: int = 24) -> str:
    """A name that others chose as a label: literally, on one line, and not longer than `most` characters."""
    text = printable(text)
    short = text if len(text) <= most else f'{text[: most - 1]}…'
    return short.replace('$', r'\$')


def shades(count: int) -> list:
    """Colors for an ordered series, such as blocks from the input to the classifier."""
    from matplotlib import colormaps

    return [colormaps['viridis'](at / max(1, count - 1) * 0.9) for at in range(count)]


def png(figure) -> bytes:
    """A figure as a PNG without date and version, so that the same data give the same file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', metadata={'Software': None})
    return buffer.getvalue()
