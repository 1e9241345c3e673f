"""Draws the schematics of ALFA and of replay: `python docs/figures/draw_method.py` -> method_*.svg, replay_*.svg."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from svg import PALETTES, Box, Canvas

FEATURE = '2815 9462 3728 1593'
DELTA = '5252 2525 5522 2255'

ALPHA = '\N{GREEK SMALL LETTER ALPHA}'
MODULES = ('stem', 'layer1', 'layer2', 'layer3', 'layer4', 'pool, fc')
# fill and stroke of a module in a replay
COMPUTED, SKIPPED, PERTURBED = ('blue_fill', 'blue'), ('gray', 'rule'), ('orange_fill', 'orange')


def method(theme: str) -> Canvas:
    """The clean pass, K ascent steps through the tail, and the two losses."""
    canvas = Canvas(
        920,
        372,
        theme,
        'ALFA: one pass through the network gives a feature. K ascent steps through the '
        'tail find a perturbation that raises the loss. Training minimizes both losses.',
    )
    clean, adv = 92, 242

    # images and the stages before the feature
    for shift in (8, 4, 0):
        image = canvas.box(Box(14 + shift, 142 - shift, 50, 50), fill='gray')
    canvas.text(43, 214, 'images', 'muted', 15)
    stages = [Box(102, 97, 40, 140), Box(158, 112, 40, 110), Box(214, 127, 40, 80)]
    for i, stage in enumerate(stages, start=1):
        canvas.box(stage, 'blue_fill', 'blue', str(i))
    canvas.arrow((74, 167), stages[0].left)
    canvas.arrow(stages[0].right, stages[1].left)
    canvas.arrow(stages[1].right, stages[2].left)
    canvas.text(178, 262, 'stages, run once', 'muted', 15)

    # the feature, and its two ways to the loss
    feature = canvas.grid(284, 146, 'blue', FEATURE)
    canvas.arrow(stages[2].right, (280, 167))
    canvas.text(304, 212, 'feature _f_', 'muted', 15)
    tails = [Box(470, clean - 28, 116, 56), Box(470, adv - 28, 116, 56)]
    losses = [Box(640, clean - 28, 120, 56), Box(640, adv - 28, 120, 56)]
    canvas.curve((feature.x + feature.w + 5, 160), tails[0].left, 'blue')
    canvas.curve((feature.x + feature.w + 5, 174), (404, adv), 'orange')
    canvas.circle(419, adv, 14, 'orange_fill', 'orange', '+')
    canvas.arrow((433, adv), tails[1].left, color='orange')
    canvas.line(tails[0].bottom, tails[1].top, 'line', 1.5, dashed=True)
    canvas.box(tails[0], 'blue_fill', 'blue', 'tail')
    canvas.box(tails[1], 'orange_fill', 'orange', 'tail')
    canvas.text(538, 172, 'same weights', 'muted', 15, 'start')
    canvas.box(losses[0], 'blue_fill', 'blue', 'clean loss\n_L_(_f_)')
    canvas.box(losses[1], 'orange_fill', 'orange', 'adversarial\nloss _L_(_f_ + _δ_)')
    canvas.arrow(tails[0].right, losses[0].left, color='blue')
    canvas.arrow(tails[1].right, losses[1].left, color='orange')

    # the search for the perturbation
    delta = canvas.grid(398, 304, 'orange', DELTA)
    canvas.text(386, 331, '_δ_', 'ink', 18)
    canvas.arrow((419, 300), (419, 259), color='orange')
    canvas.arrow(losses[1].bottom, (700, 325), (delta.x + delta.w + 8, 325), color='orange', dashed=True)
    canvas.text(570, 317, '_K_ ascent steps, through the tail only', 'orange', 15)
    canvas.text(570, 347, f'_δ_  ←  _δ_ + _{ALPHA}_ sign(∂_L_ / ∂_δ_)', 'ink', 16)

    # what training minimizes
    total = canvas.box(Box(806, 134, 104, 66), 'green_fill', 'green', 'minimize\nthe sum')
    canvas.curve(losses[0].right, (total.x, 154), 'green')
    canvas.curve(losses[1].right, (total.x, 180), 'green')
    canvas.text(858, 222, '_L_(_f_) + _λ L_(_f_ + _δ_)', 'muted', 15)
    canvas.text(image.x, 22, 'ALFA', 'ink', 17, 'start', 'bold')
    canvas.text(image.x + 54, 22, 'trains on a clean and an adversarial copy of a feature', 'muted', 16, 'start')
    return canvas


def replay(theme: str) -> Canvas:
    """The recorded pass and a replay: which modules compute, and which return what was recorded."""
    canvas = Canvas(
        920,
        330,
        theme,
        'Replay: the first pass runs every module and records the feature. In a replay '
        'the modules before the feature return a recorded value or a placeholder, the '
        'module of the feature returns the perturbed feature, and only the tail computes.',
    )
    for top, styles in ((58, (COMPUTED,) * 6), (212, (SKIPPED,) * 3 + (PERTURBED,) + (COMPUTED,) * 2)):
        boxes = [Box(78 + i * 118, top, 90, 52) for i in range(len(MODULES))]
        for box, name, (fill, stroke) in zip(boxes, MODULES, styles, strict=True):
            canvas.box(box, fill, stroke, name)
        ends = [(30, top + 26), *(box.right for box in boxes)]
        starts = [*(box.left for box in boxes), (800, top + 26)]
        for i, (end, start) in enumerate(zip(ends, starts, strict=True)):
            # the input of a module that computes nothing does not matter
            canvas.arrow(end, start, dashed=i < len(styles) and styles[i] is not COMPUTED)
        canvas.text(14, top + 31, '_x_', 'ink', 18, 'start')
    canvas.text(808, 89, 'output', 'ink', 16, 'start')
    canvas.text(808, 237, 'output for', 'ink', 16, 'start')
    canvas.text(808, 257, '_f_ + _δ_', 'ink', 16, 'start')
    canvas.text(14, 28, '1. Record', 'ink', 17, 'start', 'bold')
    canvas.text(104, 28, 'every module computes; the output _f_ of layer3 is kept', 'muted', 16, 'start')
    canvas.text(14, 188, '2. Replay', 'ink', 17, 'start', 'bold')
    canvas.text(102, 188, 'model(_x_) is called again', 'muted', 16, 'start')
    canvas.arrow((477, 110), (477, 208), color='orange')
    canvas.text(487, 164, 'keep _f_, return _f_ + _δ_', 'orange', 16, 'start')
    canvas.line((78, 280), (404, 280), 'line', 1.5)
    canvas.text(241, 303, 'return a recorded value at once', 'muted', 16)
    canvas.line((432, 280), (522, 280), 'orange', 1.5)
    canvas.text(477, 303, 'perturbed', 'orange', 16)
    canvas.line((550, 280), (758, 280), 'blue', 1.5)
    canvas.text(654, 303, 'compute as usual', 'blue', 16)
    return canvas


def main(folder: Path = HERE) -> None:
    for theme in PALETTES:
        method(theme).save(folder / f'method_{theme}.svg')
        replay(theme).save(folder / f'replay_{theme}.svg')


if __name__ == '__main__':
    main()
