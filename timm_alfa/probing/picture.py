"""The picture of a probe: loss against step size, as of a learning-rate finder."""

from matplotlib.ticker import LogLocator, NullFormatter

from timm_alfa.probing.result import ProbeResult
from timm_alfa.utils.plotting import GRAY, add_legend, new_figure, png, shades
from timm_alfa.utils.text import printable

_IN_A_COLUMN = 16  # lines of the legend
_SMALLEST = 0.01  # percent


def draw_rises(result: ProbeResult, title: str = '') -> bytes:
    """A PNG with a line for each block; its cost is in the legend.

    Args:
        title: Above the picture.
    """
    columns = -(-len(result.blocks) // _IN_A_COLUMN)
    figure, (axis,) = new_figure(width=6.4 + 1.6 * columns, height=4.2)
    for row, color in zip(result.blocks, shades(len(result.blocks)), strict=True):
        points = [(size, 100 * rise) for size, rise in zip(result.sizes, row.rises, strict=True) if rise > 0]
        cost = '' if row.cost is None else f' ({row.cost:.2f}x)'
        xs, ys = ([x for x, _ in points], [y for _, y in points])
        axis.plot(xs, ys, color=color, linewidth=1.6, marker='o', markersize=3, label=printable(row.block) + cost)

    axis.axhline(100 * result.gap, color=GRAY, linewidth=1, linestyle='--')
    axis.annotate(
        f'{100 * result.gap:g}%',
        (1, 100 * result.gap),
        xycoords=('axes fraction', 'data'),
        xytext=(-2, 2),
        textcoords='offset points',
        ha='right',
        color=GRAY,
        fontsize=8,
    )
    axis.set_xscale('log')
    axis.set_yscale('log')
    _set_range(axis)
    axis.set_xlim(result.sizes[0] / 1.1, result.sizes[-1] * 1.1)
    axis.xaxis.set_major_formatter(lambda value, position: f'{value:g}')
    axis.yaxis.set_major_formatter(lambda value, position: f'{value:g}%')
    axis.set_xlabel(f"step size relative to the feature's RMS (unit='rms'), {result.steps} steps, {result.norm}")
    axis.set_ylabel('rise of the loss')
    add_legend(
        axis, title='block (cost of a step)', title_fontsize=8, loc='upper left', bbox_to_anchor=(1, 1), ncols=columns
    )
    if title:
        figure.suptitle(printable(title), fontsize=10)
    return png(figure)


def _set_range(axis) -> None:
    """Leaves out rises that are rounding errors, and gives short ranges more ticks."""
    low, high = axis.get_ylim()
    low = max(low, _SMALLEST)
    axis.set_ylim(bottom=low)
    subs = (1, 2, 5) if high / low < 300 else (1,)
    axis.yaxis.set_major_locator(LogLocator(subs=subs))
    axis.yaxis.set_minor_formatter(NullFormatter())
