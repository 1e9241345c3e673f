"""curves.png and eta.png: a run at a glance."""

from pathlib import Path
from typing import Any

from timm_alfa.utils.files import replacing

BLUE, ORANGE, GREEN, GREY = '#2a6fbb', '#d9642c', '#3a8f5b', '#8a8a8a'


def draw_plots(folder: Path, rows: list[dict[str, Any]], best_epoch: int, title: str = '', blocks=()) -> None:
    """Draws a run's rows.

    Args:
        folder: The run's; curves.png and, where rows hold eta, eta.png are written there.
        rows: As in summary.csv, at least one.
        best_epoch: From 1; marked.
        title: Above the curves.
        blocks: Names of the blocks that eta weighs.
    """
    draw_curves(folder / 'curves.png', rows, best_epoch, title)
    if any('eta_0' in row for row in rows):
        draw_eta(folder / 'eta.png', rows, title, blocks)


def _figure(columns: int):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns, 3.6), dpi=130, layout='constrained')
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(axis='y', color='#e6e6e6', linewidth=0.8)
        axis.set_axisbelow(True)
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
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png')


def draw_curves(path: Path, rows: list[dict[str, Any]], best_epoch: int, title: str) -> None:
    """Loss, accuracy, and size of the perturbation with the learning rate."""
    perturbed = any(row.get('delta_norm') is not None for row in rows)
    figure, axes = _figure(3 if perturbed else 2)
    loss, accuracy = axes[:2]
    loss.set_title('loss')
    clean = ('train_loss_clean', 'training, clean') if perturbed else ('train_loss', 'training')
    _line(loss, rows, *clean, BLUE)
    _line(loss, rows, 'train_loss_adv', 'training, perturbed', GREEN)
    _line(loss, rows, 'val_loss', 'validation', ORANGE)
    accuracy.set_title('top-1 accuracy, %')
    _line(accuracy, rows, 'train_top1', 'training', BLUE)
    _line(accuracy, rows, 'val_top1', 'validation', ORANGE)
    _line(accuracy, rows, 'val_top1_not_averaged', 'validation, weights not averaged', GREY, linestyle='--')
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
        _draw_delta(axes[2], rows)
    for axis in (loss, accuracy):
        axis.legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _draw_delta(axis, rows) -> None:
    axis.set_title('perturbation and learning rate')
    _line(axis, rows, 'delta_norm', 'mean l2 norm of delta', GREEN)
    axis.set_ylim(0, 1.15 * max(row.get('delta_norm') or 0 for row in rows) or 1)
    other = axis.twinx()
    other.spines[['top']].set_visible(False)
    _line(other, rows, 'lr', 'learning rate (right)', GREY, linestyle=':', drawstyle='steps-mid')
    other.set_ylim(0, 1.15 * max(row['lr'] for row in rows) or 1)
    handles = [line for side in (axis, other) for line in side.get_lines()]
    axis.legend(handles, [line.get_label() for line in handles], frameon=False, fontsize=8, loc='center right')


def draw_eta(path: Path, rows: list[dict[str, Any]], title: str, blocks=()) -> None:
    """The weight of each block over the epochs, and at the end; a block has one colour in both."""
    from matplotlib import colormaps

    keys = sorted((key for key in rows[-1] if key.startswith('eta_')), key=lambda key: int(key[4:]))
    names = list(blocks) or [key[4:] for key in keys]
    places = list(range(len(keys)))
    figure, (course, final) = _figure(2)
    colors = [colormaps['viridis'](at / max(1, len(keys) - 1) * 0.9) for at in places]
    course.set_title('weight of each block (eta), colours as right')
    for key, color in zip(keys, colors, strict=True):
        _line(course, rows, key, key, color)
    final.set_title(f'after epoch {rows[-1]["epoch"]}')
    final.bar(places, [rows[-1][key] for key in keys], color=colors)
    final.axhline(0, color='black', linewidth=0.8)
    final.axhline(1 / len(keys), color=GREY, linewidth=1, linestyle='--', label=f'equal weights: {1 / len(keys):.3g}')
    final.set_xlabel('block, from the input to the classifier')
    final.set_xticks(places, names, rotation=45 if blocks else 0, ha='right' if blocks else 'center', fontsize=8)
    final.legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    _save(figure, path)
