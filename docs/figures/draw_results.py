"""Draws the headline result from results/: `python docs/figures/draw_results.py` -> gain_*.svg."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from svg import PALETTES, Canvas

from studies import stats

BASE = 'small'
# recipe, label, color, row of the cost table
ROWS = (
    ('small_alfa', 'ALFA', 'orange', 'alfa'),
    ('small_double', 'standard, loss doubled', 'blue', 'standard'),
    ('small_alfa_mean', "ALFA, reduction='mean'", 'orange', 'alfa'),
    ('small_noise', 'Gaussian noise on features', 'blue', 'noise'),
    ('small_moex', 'MoEx', 'blue', 'moex'),
)
COST_MODEL = 'resnet56s'
LEFT, RIGHT, TOP, STEP = 262, 610, 88, 40
LOW, HIGH = -1.5, 3.0
MINUS, TIMES = '\N{MINUS SIGN}', '\N{MULTIPLICATION SIGN}'


def gains() -> list[stats.Difference]:
    """The paired differences in test top-1 between each row and standard training, in percentage points."""
    scores: dict[str, dict[int, float]] = {}
    for path in sorted((ROOT / 'results' / 'runs').glob('small*.json')):
        record = json.loads(path.read_text(encoding='utf-8'))
        scores.setdefault(record['recipe'], {})[record['seed']] = record['test_top1']
    return [stats.paired(scores[recipe], scores[BASE]) for recipe, *_ in ROWS]


def costs() -> list[float]:
    """The time of each row's training step as a multiple of a standard one."""
    table = json.loads((ROOT / 'results' / 'benchmarks' / 'step_cost.json').read_text(encoding='utf-8'))
    times = {row['variant']: row['time'] for row in table['Methods'] if row['model'] == COST_MODEL}
    return [times[variant] for *_, variant in ROWS]


def at(points: float) -> float:
    """Where a gain lies on the horizontal axis."""
    return LEFT + (points - LOW) / (HIGH - LOW) * (RIGHT - LEFT)


def gain(theme: str) -> Canvas:
    """Gain in top-1 with its interval, and the time of a step, one row per method."""
    bottom = TOP + STEP * len(ROWS)
    canvas = Canvas(
        920,
        bottom + 62,
        theme,
        'Gain in test top-1 over standard training, with 95% intervals, and time '
        'of a training step, for ALFA and what it is compared with.',
    )
    canvas.text(14, 24, 'Gain over standard training', 'ink', 17, 'start', 'bold')
    canvas.text(252, 24, 'ResNet-20s, 5,000 images of CIFAR-10, paired seeds', 'muted', 16, 'start')
    canvas.text(800, 58, 'gain [95% CI]', 'muted', 15, 'end')
    canvas.text(906, 58, 'step time', 'muted', 15, 'end')

    # the axis
    for points in range(-1, 4):
        canvas.line((at(points), TOP - 18), (at(points), bottom - 14), 'line' if points == 0 else 'rule', 1)
        canvas.text(at(points), bottom + 8, f'{points:+d}'.replace('-', MINUS) if points else '0', 'muted', 15)
    canvas.text(at((LOW + HIGH) / 2), bottom + 34, 'percentage points of test top-1', 'muted', 15)

    # one row per method
    for i, ((_, label, color, _), found, cost) in enumerate(zip(ROWS, gains(), costs(), strict=True)):
        y = TOP + i * STEP
        canvas.text(14, y + 5, label, 'ink', 16, 'start')
        canvas.text(LEFT - 6, y + 5, f'n={found.n}', 'muted', 14, 'end')
        canvas.line((at(found.low), y), (at(found.high), y), color, 2.5)
        for end in (found.low, found.high):
            canvas.line((at(end), y - 6), (at(end), y + 6), color, 2.5)
        canvas.circle(at(found.mean), y, 6, f'{color}_fill', color)
        canvas.text(
            800, y + 5, f'{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]'.replace('-', MINUS), 'ink', 15, 'end'
        )
        canvas.text(906, y + 5, f'{cost:.2f}{TIMES}', 'ink', 15, 'end')
    return canvas


def main(folder: Path = HERE) -> None:
    for theme in PALETTES:
        gain(theme).save(folder / f'gain_{theme}.svg')


if __name__ == '__main__':
    main()
