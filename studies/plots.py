"""Draws what tables cannot show at a glance. Each function returns None if there are too few runs for its figure."""

import math
import re
from typing import Any, Mapping, Optional, Sequence

from studies import stats
from studies.compare import Condition, Record, Runs, compare, time_ratio
from studies.formats import plural
from studies.recipes import WIDTH_STEPS, WIDTHS
from studies.tables import TABLES, Table
from timm_alfa.utils.plotting import BLUE, GRAY, ORANGE, SERIES, add_legend, new_figure, shades

Figure = Any
# Trained without perturbation, and their colors.
REFERENCES = dict(small='black', small_double='0.6')
# Equally strong perturbations, with as many seeds as the references.
TRAINING = ('small_alfa', 'small_alfa_mean')


def bars(table: Table, where: Condition, runs: Runs) -> Optional[Figure]:
    """Each row's paired difference to the baseline, with its interval."""
    first = table.rows[0].recipe
    found = []
    for row in table.rows[1:]:
        for comparison in compare(table, row, runs):
            if comparison.other == first and comparison.difference:
                found.append((row.label, comparison.difference))
    if sum(not label.startswith('standard') for label, _ in found) < 2:  # one place cannot be compared with others
        return None

    figure, (axis,) = new_figure(width=max(4.0, 1.0 + 0.9 * len(found)))
    for at, (_, difference) in enumerate(found):
        axis.bar(at, difference.mean, 0.6, color=BLUE if difference.mean > 0 else ORANGE, alpha=0.85)
        if difference.low is not None:
            axis.errorbar(at, difference.mean, _half_width(difference), color='black', capsize=4, linewidth=1.2)
    axis.axhline(0, color='black', linewidth=0.8)
    axis.set_xlim(-0.6, len(found) - 0.4)
    ticks = [f'{label}\nn = {difference.n}'.replace(', ', ',\n') for label, difference in found]
    axis.set_xticks(range(len(found)), ticks, fontsize=9)
    axis.set_ylabel('points above standard')
    _set_title(axis, table.title, where)
    return figure


def per_block(column: str, recipe: str, where: Condition, runs: Mapping[int, Record]) -> Figure:
    """A column that has a value for each block, over the epochs: one line per seed, the last block in black.

    Args:
        column: Its name in a record's history, such as 'eta'.
        recipe: Name of the recipe.
        where: Condition of the runs.
        runs: The recipe's runs by seed.
    """
    blocks = next(iter(runs.values()))['blocks']
    colors = [*shades(len(blocks))[:-1], 'black']
    figure, (axis,) = new_figure(width=7.2)
    series = [record['history'][column] for record in runs.values() if column in record['history']]
    for which, epochs in enumerate(series):
        for at, block in enumerate(blocks):
            _line(
                axis,
                [epoch[at] for epoch in epochs],
                color=colors[at],
                label=None if which else block,
                linewidth=2.2 if at == len(blocks) - 1 else 1.4,
            )
    axis.set(xlabel='epoch', ylabel=column)
    add_legend(axis, loc='center left', bbox_to_anchor=(1, 0.5))

    is_figure4 = recipe in [row.recipe for row in TABLES['figure4'].rows]
    title = f'{column} over epochs, {recipe} ({plural(len(series), "seed")})'
    _set_title(axis, f'Figure 4: {title}' if is_figure4 else title, where)
    return figure


def cost(where: Condition, runs: Runs) -> Optional[Figure]:
    """Seconds per epoch against K, relative to standard training."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for recipe in runs:
        match = re.fullmatch(r'cost_alfa_(\w+)_k(\d+)', recipe)
        ratio = time_ratio(runs, recipe, 'cost') if match else None
        if ratio:
            lines.setdefault(match[1], []).append((int(match[2]), ratio))
    if not lines:
        return None

    figure, (axis,) = new_figure()
    labels = {'last': 'last block', '1': 'block 1'}
    for color, (blocks, points) in zip(SERIES, sorted(lines.items(), reverse=True), strict=False):
        axis.plot(*zip(*sorted(points), strict=True), marker='o', color=color, label=f'ALFA, {labels[blocks]}')
    advprop = time_ratio(runs, 'cost_advprop', 'cost')
    if advprop:
        axis.plot([5], [advprop], marker='s', linestyle='', color=SERIES[2], label='AdvProp')
    axis.axhline(1, color=GRAY, linewidth=1, linestyle='--', label='standard')
    axis.set(xlabel='steps K', ylabel='time per epoch, relative to standard', ylim=(0, None))
    add_legend(axis)
    _set_title(axis, 'Cost against steps, resnet20s', where)
    return figure


def training(where: Condition, runs: Runs) -> Optional[Figure]:
    """On small data: loss on clean and perturbed features, the gap between them, and the norm of delta, per epoch."""
    drawn = [name for name in (*REFERENCES, *TRAINING) if name in runs]
    seeds = sorted(set.intersection(*({*runs[name]} for name in drawn))) if drawn else []
    perturbed = [name for name in drawn if mean_history(runs[name], 'delta_norm', seeds)]
    if not perturbed:
        return None

    figure, (losses, gaps, norms) = new_figure(3, width=11.0)
    table = TABLES['small']
    for at, name in enumerate(perturbed):
        clean = mean_history(runs[name], 'train_loss_clean', seeds)
        adversarial = mean_history(runs[name], 'train_loss_adv', seeds)
        color = SERIES[at]
        _line(losses, clean, color=color, label=table.row(name).label)
        _line(losses, adversarial, color=color, linestyle=':')
        _line(gaps, [high - low for low, high in zip(clean, adversarial, strict=True)], color=color)
        # the norms of two methods are often the same, so the first line is wider
        _line(norms, mean_history(runs[name], 'delta_norm', seeds), color=color, linewidth=3.5 - at, alpha=0.7)

    # references, with a weighted loss divided by its weight
    for name, color in REFERENCES.items():
        if name in drawn:
            weight = runs[name][seeds[0]]['options'].get('standard_weight', 1.0)
            loss = mean_history(runs[name], 'train_loss', seeds)
            _line(losses, [value / weight for value in loss], color=color, label=table.row(name).label)

    losses.set(xlabel='epoch', ylabel='training loss: clean, perturbed (dotted)', yscale='log')
    losses.set_yticks([0.3, 0.5, 1, 2], ['0.3', '0.5', '1', '2'])
    losses.set_yticks([], minor=True)
    gaps.set(xlabel='epoch', ylabel='perturbed minus clean')
    norms.set(xlabel='epoch', ylabel='l2 norm of delta, mean over images', ylim=(0, 1.15 * norms.get_ylim()[1]))
    add_legend(losses)
    _set_title(losses, f'Loss, small data ({plural(len(seeds), "seed")})', where)
    _set_title(gaps, 'Loss added by the perturbation', where)
    _set_title(norms, 'Size of the perturbation', where)
    return figure


def widths(where: Condition, runs: Runs) -> Optional[Figure]:
    """For each width of the network, what a step size gains and what loss it adds."""
    gains = {width: step_gains(TABLES[f'small_width_{width}'], runs) for width in WIDTHS}
    if sum(len(found) > 1 for found in gains.values()) < 2:
        return None

    figure, (points, losses) = new_figure(2, width=11.0)
    for at, (width, found) in enumerate(gains.items()):
        if not found:
            continue
        style = dict(color=SERIES[at], label=f'channels {"-".join(map(str, WIDTHS[width]))}')
        # shifted sideways, so that intervals do not overlap
        shifted = [(step * (1 + 0.04 * (at - 1)), difference) for step, _, difference in found]
        _gain_line(points, shifted, **style)
        added = [(step, added_loss(runs[recipe])) for step, recipe, _ in found]
        added = [(step, loss) for step, loss in added if loss is not None]
        if added:
            losses.plot([step for step, _ in added], [loss for _, loss in added], marker='o', **style)

    points.axhline(0, color='black', linewidth=0.8)
    steps = [float(step) for step in WIDTH_STEPS]
    for axis in (points, losses):
        axis.set_xscale('log', base=2)
        axis.set_xticks(steps, [f'{step:g}' for step in steps])
        axis.set_xlabel('step size x 255')
        add_legend(axis, fontsize=9)
    points.set_ylabel('points above the doubled loss')
    losses.set(ylabel='perturbed minus clean loss', yscale='log')
    _set_title(points, 'Step size against width, small data', where)
    _set_title(losses, 'Loss added by the perturbation', where)
    return figure


def step_gains(table: Table, runs: Runs) -> list[tuple[float, str, stats.Difference]]:
    """Step size x 255, recipe, and difference to the table's first row, where there is one."""
    found = []
    for step, row in zip(WIDTH_STEPS, table.rows[1:], strict=True):
        for comparison in compare(table, row, runs):
            if comparison.difference is not None:
                found.append((float(step), row.recipe, comparison.difference))
    return found


def mean_history(runs: Mapping[int, Record], column: str, seeds: Sequence[int]) -> list[float]:
    """A column of summary.csv, averaged over seeds for each epoch: nan where it is empty, [] if it is missing."""
    columns = [runs[seed]['history'].get(column, ()) for seed in seeds]
    # as many epochs as all seeds have
    return [math.nan if None in epoch else sum(epoch) / len(epoch) for epoch in zip(*columns, strict=False)]


def added_loss(runs: Mapping[int, Record]) -> Optional[float]:
    """Perturbed minus clean training loss in the last epoch, averaged over seeds; None if it was not recorded."""
    clean = mean_history(runs, 'train_loss_clean', list(runs))
    adversarial = mean_history(runs, 'train_loss_adv', list(runs))
    return adversarial[-1] - clean[-1] if adversarial else None


def _gain_line(axis, points: Sequence[tuple[float, stats.Difference]], color: str, label: str) -> None:
    """Differences with their intervals, hollow and dotted where there are too few pairs for an interval."""
    for at, found in points:
        axis.errorbar(
            at,
            found.mean,
            _half_width(found),
            color=color,
            marker='o',
            capsize=3,
            markerfacecolor='white' if found.n < stats.FEWEST_PAIRS else None,
        )
    enough = all(found.n >= stats.FEWEST_PAIRS for _, found in points)
    axis.plot(
        [at for at, _ in points],
        [found.mean for _, found in points],
        color=color,
        label=label,
        zorder=0,
        linestyle='-' if enough else ':',
    )


def _half_width(difference: stats.Difference) -> float:
    return 0.0 if difference.high is None else difference.high - difference.mean


def _line(axis, column: Sequence[float], linewidth: float = 1.3, **style) -> None:
    axis.plot(range(1, len(column) + 1), column, linewidth=linewidth, **style)


def _set_title(axis, title: str, where: Condition) -> None:
    axis.set_title(f'{title}\n{where.text}', fontsize=10)
