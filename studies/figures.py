"""results/figures/: what the tables cannot show at a glance."""
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from studies import stats
from studies.evidence import Condition, Runs, compare, conditions_of, time_ratio
from studies.rows import RECIPES, WIDTH_STEPS, WIDTHS
from studies.tables import TABLES, Table

WIDTH = 6.4
CAPTIONS = dict(
    eta="{recipe}: L-ALFA's magnitudes over the epochs, a line a seed; the last feature's are black.",
    cost='Seconds an epoch as multiples of standard training.',
    training='Cross-entropy of clean and of moved features, the gap between them, and how far features are moved, over '
             'the epochs; averaged over the seeds that all of them share.',
    widths='Against the step size, a line for each width of the network: points above standard training with its loss '
           'doubled, which is ALFA with a step of zero (95% intervals, hollow and joined by dots where there are fewer '
           'than three pairs), and the loss that moving the features adds in the last epoch, averaged over seeds.')


def draw_all(groups: Mapping[Condition, Runs], folder: Path) -> list[Path]:
    """Draws every figure that has runs behind it, and removes those that have none any more.

    Returns:
        The files, by name.
    """
    import matplotlib
    matplotlib.use('Agg')
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in _figures(groups):
        path = folder / f'{name}.png'
        # no date and no version inside: the same runs give the same file
        figure.savefig(path, dpi=130, metadata={'Software': None})
        _close(figure)
        written.append(path)
    for path in set(folder.glob('*.png')) - set(written):
        path.unlink()
    return sorted(written)


def _figures(groups: Mapping[Condition, Runs]) -> Iterator[tuple[str, Any]]:
    for table in TABLES.values():
        for where, runs in conditions_of(table, groups) if table.bars else ():
            figure = bars(table, where, runs)
            if figure is not None:
                yield _name(table.name, where), figure
    for where, runs in groups.items():
        for recipe, by_seed in runs.items():
            if any('eta' in record['history'] for record in by_seed.values()):
                yield _name(f'eta_{recipe}', where), eta(recipe, where, by_seed)
        for name, draw in (('cost', cost), ('training', training), ('widths', widths)):
            figure = draw(where, runs)
            if figure is not None:
                yield _name(name, where), figure


def caption(stem: str) -> str:
    """What a figure shows, from the name of its file."""
    table = next((table for name, table in TABLES.items() if table.bars and stem.startswith(f'{name}_')), None)
    if table is not None:
        return f'{table.title}: points above the standard row, paired, with 95% intervals.'
    recipe = next((name for name in sorted(RECIPES, key=len, reverse=True) if stem.startswith(f'eta_{name}_')), None)
    text = next(text for name, text in CAPTIONS.items() if stem.startswith(name))
    return text.format(recipe=recipe)


def _name(name: str, where: Condition) -> str:
    scale = '' if where.scale == 1 else f'_x{where.scale:g}'
    return f"{name}{scale}_{where.precision if where.precision != 'no' else 'fp32'}_{where.device.lower()}"


def _subplots(columns: int = 1, width: float = WIDTH, height: float = 3.6):
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout='constrained', squeeze=False)
    for axis in axes[0]:
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(axis='y', color='0.9', linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, list(axes[0])


def _close(figure) -> None:
    import matplotlib.pyplot as plt
    plt.close(figure)


def bars(table: Table, where: Condition, runs: Runs):
    """Each row's paired difference to the standard row, with its interval; None where fewer than two were run."""
    first = table.rows[0].recipe
    found = [(row.label, comparison.difference) for row in table.rows[1:]
             for comparison in compare(table, row, runs) if comparison.other == first and comparison.difference]
    if sum(not label.startswith('standard') for label, _ in found) < 2:  # one place says nothing of places
        return None
    figure, (axis,) = _subplots(width=max(4.0, 1.0 + 0.9 * len(found)))
    for at, (_, difference) in enumerate(found):
        axis.bar(at, difference.mean, 0.6, color='C0' if difference.mean > 0 else 'C3', alpha=0.85)
        if difference.low is not None:
            axis.errorbar(at, difference.mean, _half(difference), color='black', capsize=4, linewidth=1.2)
    axis.axhline(0, color='black', linewidth=0.8)
    axis.set_xlim(-0.6, len(found) - 0.4)
    axis.set_xticks(range(len(found)), [f'{label}\nn = {difference.n}' for label, difference in found], fontsize=9)
    axis.set_ylabel('points above standard')
    _titled(axis, table.title, where)
    return figure


def _titled(axis, title: str, where: Condition) -> None:
    axis.set_title(f'{title}\n{where.text}', fontsize=10)


def mean_history(runs: Mapping[int, Mapping[str, Any]], column: str, seeds: Sequence[int]) -> list[float]:
    """A column of summary.csv averaged over seeds, epoch by epoch: nan where it is empty, [] where it is missing."""
    columns = [runs[seed]['history'].get(column, ()) for seed in seeds]
    return [math.nan if None in row else sum(row) / len(row) for row in zip(*columns)]  # noqa: B905


def eta(recipe: str, where: Condition, runs: Mapping[int, Mapping[str, Any]]):
    """L-ALFA's magnitudes over epochs, a line a seed; the last block's in black."""
    series = [record['history']['eta'] for record in runs.values() if 'eta' in record['history']]
    blocks = next(iter(runs.values()))['blocks']
    figure, (axis,) = _subplots(width=7.2)
    for at, block in enumerate(blocks):
        last = at == len(blocks) - 1
        for which, one in enumerate(series):
            _line(axis, [epoch[at] for epoch in one], linewidth=2.2 if last else 1.4,
                  label=None if which else block, color='black' if last else _shade(at, len(blocks)))
    axis.set(xlabel='epoch', ylabel='eta')
    axis.legend(fontsize=8, frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
    place = 'Figure 4: ' if recipe in (row.recipe for row in TABLES['figure4'].rows) else ''
    _titled(axis, f"{place}eta over epochs, {recipe} ({len(series)} seed{'s' if len(series) > 1 else ''})", where)
    return figure


def _shade(at: int, size: int):
    import matplotlib
    return f'C{at}' if size <= 11 else matplotlib.colormaps['viridis'](0.05 + 0.85 * at / (size - 1))


def cost(where: Condition, runs: Runs):
    """Seconds an epoch against K, as multiples of standard training; None where nothing can be compared."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for recipe in runs:
        match = re.fullmatch(r'cost_alfa_(\w+)_k(\d+)', recipe)
        if match and (ratio := time_ratio(runs, recipe, 'cost')):
            lines.setdefault(match[1], []).append((int(match[2]), ratio))
    if not lines:
        return None
    figure, (axis,) = _subplots()
    labels = {'last': 'last block', '1': 'block 1'}
    for name, points in sorted(lines.items(), reverse=True):
        axis.plot(*zip(*sorted(points), strict=True), marker='o', label=f'ALFA, {labels.get(name, name)}')
    if advprop := time_ratio(runs, 'cost_advprop', 'cost'):
        axis.plot([5], [advprop], marker='s', linestyle='', color='C3', label='AdvProp')
    axis.axhline(1, color='0.4', linewidth=1, linestyle='--', label='standard')
    axis.set(xlabel='steps K', ylabel='time of an epoch / standard', ylim=(0, None))
    axis.legend(fontsize=9, frameon=False)
    _titled(axis, 'Cost against steps, resnet20s', where)
    return figure


YARDSTICKS = dict(small='black', small_double='0.6')
TRAINING = ('small_alfa', 'small_alfa_mean')  # by as much, and with as many seeds as the yardsticks


def training(where: Condition, runs: Runs):
    """Loss on clean and moved features, their gap, and delta's norm over the epochs, small data; None without any."""
    drawn = [name for name in (*YARDSTICKS, *TRAINING) if name in runs]
    seeds = sorted(set.intersection(*({*runs[name]} for name in drawn))) if drawn else []
    rows = [row for row in TABLES['small'].rows
            if row.recipe in drawn and mean_history(runs[row.recipe], 'delta_norm', seeds)]
    if not rows:
        return None
    figure, (losses, gaps, norms) = _subplots(3, width=11.0)
    for at, row in enumerate(rows):
        clean, moved, norm = (mean_history(runs[row.recipe], name, seeds)
                              for name in ('train_loss_clean', 'train_loss_adv', 'delta_norm'))
        _line(losses, clean, color=f'C{at}', label=row.label)
        _line(losses, moved, color=f'C{at}', linestyle=':')
        _line(gaps, [b - a for a, b in zip(clean, moved, strict=True)], color=f'C{at}')
        _line(norms, norm, color=f'C{at}', linewidth=3.5 - at, alpha=0.7)  # two methods' norms are often the same
    for name, color in YARDSTICKS.items():
        if name in drawn:
            weight = runs[name][seeds[0]]['options'].get('standard_weight', 1.0)
            _line(losses, [loss / weight for loss in mean_history(runs[name], 'train_loss', seeds)], color=color,
                  label=next(row.label for row in TABLES['small'].rows if row.recipe == name))
    losses.set(xlabel='epoch', ylabel='training loss: clean, moved (dotted)', yscale='log')
    losses.set_yticks([0.3, 0.5, 1, 2], ['0.3', '0.5', '1', '2'])
    losses.set_yticks([], minor=True)
    gaps.set(xlabel='epoch', ylabel='moved minus clean')
    norms.set(xlabel='epoch', ylabel='l2 norm of delta, mean over images', ylim=(0, 1.15 * norms.get_ylim()[1]))
    losses.legend(fontsize=8, frameon=False)
    _titled(losses, f"Loss, small data ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})", where)
    _titled(gaps, 'Loss that moving the features adds', where)
    _titled(norms, 'Size of the perturbation', where)
    return figure


def _line(axis, column: Sequence[float], linewidth: float = 1.3, **style) -> None:
    axis.plot(range(1, len(column) + 1), column, linewidth=linewidth, **style)


def widths(where: Condition, runs: Runs):
    """What a step size gives and what loss it adds, for each width; None where fewer than two have two of them."""
    lines = {name: list(_step_gains(TABLES[f'small_width_{name}'], runs)) for name in WIDTHS}
    if sum(len(points) > 1 for points in lines.values()) < 2:
        return None
    figure, (points, losses) = _subplots(2, width=11.0)
    for at, (name, found) in enumerate(lines.items()):
        if found:
            style = dict(color=f'C{at}', label='channels ' + '-'.join(map(str, WIDTHS[name])))
            # side by side, so that intervals can be told apart
            _gain_line(points, [(step * (1 + 0.04 * (at - 1)), gain) for step, _, gain in found], **style)
            added = ((step, _added_loss(runs[recipe])) for step, recipe, _ in found)
            losses.plot(*zip(*(point for point in added if point[1] is not None)), marker='o', **style)  # noqa: B905
    points.axhline(0, color='black', linewidth=0.8)
    steps = [float(step) for step in WIDTH_STEPS]
    for axis in (points, losses):
        axis.set_xscale('log', base=2)
        axis.set_xticks(steps, [f'{step:g}' for step in steps])
        axis.set_xlabel('step size x 255')
        axis.legend(fontsize=9, frameon=False)
    points.set_ylabel('points above the doubled loss')
    losses.set(ylabel='moved minus clean loss', yscale='log')
    _titled(points, 'Step size against width, small data', where)
    _titled(losses, 'Loss that moving the features adds', where)
    return figure


def _gain_line(axis, points: Sequence[tuple[float, stats.Difference]], color: str, label: str) -> None:
    """Differences with their intervals; hollow and dotted where too few pairs stand behind one."""
    for at, found in points:
        axis.errorbar(at, found.mean, _half(found), color=color, marker='o', capsize=3,
                      markerfacecolor='white' if found.n < stats.FEWEST_PAIRS else None)
    sure = all(found.n >= stats.FEWEST_PAIRS for _, found in points)
    axis.plot(*zip(*((at, found.mean) for at, found in points), strict=True), color=color, label=label, zorder=0,
              linestyle='-' if sure else ':')


def _step_gains(table: Table, runs: Runs) -> Iterator[tuple[float, str, stats.Difference]]:
    """Step size x 255, recipe, and what it makes beside the table's first row."""
    for row in table.rows[1:]:
        for found in compare(table, row, runs):
            if found.difference is not None:
                yield float(row.label.split()[1].split('/')[0]), row.recipe, found.difference


def _added_loss(runs: Mapping[int, Mapping[str, Any]]) -> Optional[float]:
    """Moved minus clean training loss in the last epoch, averaged over seeds; None where it was not recorded."""
    clean, moved = (mean_history(runs, f'train_loss_{part}', list(runs)) for part in ('clean', 'adv'))
    return moved[-1] - clean[-1] if moved else None


def _half(difference: Optional[stats.Difference]) -> float:
    return 0.0 if difference.high is None else difference.high - difference.mean
