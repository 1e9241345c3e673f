"""curves.png and the plots of a method: a run at a glance."""

from pathlib import Path
from typing import Any, Sequence

from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.training.checkpoint.write_errors import write_errors
from timm_alfa.utils.files import atomic_file
from timm_alfa.utils.plotting import BLUE, GRAY, GREEN, ORANGE, add_legend, new_figure, png, shades
from timm_alfa.utils.text import printable


def draw_plots(
    folder: Path,
    rows: list[dict[str, Any]],
    best_epoch: int,
    title: str = '',
    plots: Sequence[EpochPlot] = (),
) -> None:
    """Draws curves.png and the plots of the method into a run's folder.

    Args:
        rows: As in summary.csv, at least one.
        best_epoch: Counted from 1; it is marked.
        title: Above the curves.
        plots: Of the method.
    """
    draw_curves(folder / 'curves.png', rows, best_epoch, title, [plot for plot in plots if plot.file is None])
    for plot in plots:
        if plot.file is not None:
            draw_epoch_plot(folder / plot.file, rows, title, plot)


def _figure(columns: int):
    figure, axes = new_figure(columns, width=4.6 * columns)
    for axis in axes:
        axis.set_xlabel('epoch')
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure, axes


def _line(axis, rows, key: str, label: str, color: str, **style) -> None:
    points = [(row['epoch'], row[key]) for row in rows if row.get(key) is not None]
    if points:
        marker = 'o' if len(points) <= 30 else None
        style = dict(linewidth=1.6, marker=marker, markersize=3, clip_on=False, **style)
        axis.plot(*zip(*points, strict=True), label=label, color=color, **style)


def _save(figure, path: Path) -> None:
    with write_errors(path), atomic_file(path) as temporary:
        temporary.write_bytes(png(figure))


def draw_curves(
    path: Path, rows: list[dict[str, Any]], best_epoch: int, title: str, plots: Sequence[EpochPlot] = ()
) -> None:
    """Draws the loss, the accuracy, the strength of the perturbation with the learning rate, and plots of the method.

    Args:
        plots: Those that have no file of their own.
    """
    perturbed = any(row.get('delta_norm') is not None for row in rows)
    figure, axes = _figure((3 if perturbed else 2) + len(plots))
    loss, accuracy = axes[:2]
    loss.set_title('loss')
    clean = ('train_loss_clean', 'training, clean') if perturbed else ('train_loss', 'training')
    _line(loss, rows, *clean, BLUE)
    _line(loss, rows, 'train_loss_adv', 'training, perturbed', GREEN)
    _line(loss, rows, 'val_loss', 'validation', ORANGE)
    accuracy.set_title('top-1 accuracy, %')
    _line(accuracy, rows, 'train_top1', 'training', BLUE)
    _line(accuracy, rows, 'val_top1', 'validation', ORANGE)
    _line(accuracy, rows, 'val_top1_not_averaged', 'validation, without EMA', GRAY, linestyle='--')
    best = next((row for row in rows if row['epoch'] == best_epoch), None)
    if best is not None:
        accuracy.plot(
            best_epoch,
            best['val_top1'],
            marker='*',
            markersize=12,
            color=ORANGE,
            linestyle='',
            label=f'best: {best["val_top1"]:.2f} in epoch {best_epoch}',
        )
    if perturbed:
        _draw_strength(axes[2], rows)
    for axis, plot in zip(axes[len(axes) - len(plots) :], plots, strict=True):
        axis.set_title(plot.title)
        _draw_course(axis, rows, plot, plot.labels)
        add_legend(axis)
    for axis in (loss, accuracy):
        add_legend(axis)
    if title:
        figure.suptitle(printable(title), fontsize=10)
    _save(figure, path)


# The first of these columns that a run has says how strong its perturbations are; older runs have the last one alone.
STRENGTHS = (('delta_ratio', 'perturbation / feature'), ('delta_norm', 'mean l2 norm of delta'))


def _draw_strength(axis, rows) -> None:
    axis.set_title('perturbation and learning rate')
    shown = [('loss_rise', 'rise of the loss, relative', ORANGE)]
    key, label = next(each for each in STRENGTHS if _has(rows, each[0]))
    shown.append((key, label, GREEN))
    shown = [each for each in shown if _has(rows, each[0])]
    for each in shown:
        _line(axis, rows, *each)
    values = [row[key] for row in rows for key, _, _ in shown if row.get(key) is not None]
    axis.set_ylim(min(0, *values), 1.15 * max(0, *values) or 1)

    other = axis.twinx()
    other.spines[['top']].set_visible(False)
    _line(other, rows, 'lr', 'learning rate (right)', GRAY, linestyle=':', drawstyle='steps-mid')
    other.set_ylim(0, 1.15 * max(row['lr'] for row in rows) or 1)
    handles = [*axis.get_lines(), *other.get_lines()]
    add_legend(axis, handles=handles, labels=[line.get_label() for line in handles], loc='center right')


def _has(rows, key: str) -> bool:
    return any(row.get(key) is not None for row in rows)


def _draw_course(axis, rows, plot: EpochPlot, labels: Sequence[str]) -> None:
    for column, label, color in zip(plot.columns, labels, shades(len(plot.columns)), strict=True):
        _line(axis, rows, column, label, color)
    if plot.log:
        axis.set_yscale('log')


def draw_epoch_plot(path: Path, rows: list[dict[str, Any]], title: str, plot: EpochPlot) -> None:
    """Draws a method's columns over the epochs, and at the end; a column has the same color in both."""
    figure, (course, final) = _figure(2)
    count = len(plot.columns)
    places = list(range(count))
    colors = shades(count)

    course.set_title(f'{plot.title}, colors as on the right')
    _draw_course(course, rows, plot, plot.columns)

    final.set_title(f'after epoch {rows[-1]["epoch"]}')
    final.bar(places, [rows[-1][column] for column in plot.columns], color=colors)
    final.axhline(0, color='black', linewidth=0.8)
    final.set_xlabel(plot.xlabel)
    final.set_xticks(places, plot.labels, rotation=45, ha='right', fontsize=8)
    if plot.reference is not None:
        final.axhline(plot.reference, color=GRAY, linewidth=1, linestyle='--', label=plot.reference_label)
        add_legend(final)

    if title:
        figure.suptitle(printable(title), fontsize=10)
    _save(figure, path)
