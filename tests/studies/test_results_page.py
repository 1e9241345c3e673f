"""Every number on the page that is written by hand, results/README.md, is what the records give."""

import json
import re
from functools import cache
from typing import Optional, Sequence

import pytest
from scipy.stats import ttest_1samp

from studies import ROOT, compare, plots, records, stats
from studies.tables import TABLES, Contrast

RESULTS = ROOT / 'results'
SHARED_SEEDS = (0, 1, 2)  # of both widths
ALFA, DOUBLED = ('small_alfa', 'small'), ('small_double', 'small')


@cache
def runs() -> dict:
    ((_, found),) = compare.by_condition(records.load_all()).items()
    return found


@cache
def page() -> str:
    """The page on one line."""
    return ' '.join((RESULTS / 'README.md').read_text(encoding='utf-8').split())


def paired(recipe: str, other: str, metric: str = 'test_top1', seeds: Optional[Sequence[int]] = None):
    """A paired difference, of some seeds or of all."""
    ours, others = (compare.values(runs()[name], metric) for name in (recipe, other))
    if seeds is not None:
        ours = {seed: ours[seed] for seed in seeds}
    return stats.paired(ours, others)


def interval(found: stats.Difference, digits: int = 2, n: bool = False) -> str:
    count = f', n={found.n}' if n else ''
    return f'{found.mean:.{digits}f} (95% CI {found.low:.{digits}f} to {found.high:.{digits}f}{count})'


def points(recipe: str, other: str, metric: str = 'test_top1') -> tuple[str, str]:
    """A difference in words: its mean and its interval, which a sentence may separate."""
    mean, _, rest = interval(paired(recipe, other, metric), n=True).partition(' ')
    return f'{mean} points', rest


def small_contrast(label: str, metric: str) -> stats.Difference:
    one = next(one for one in TABLES['small'].contrasts if one.label.startswith(label))
    return compare.contrast(runs(), one, metric)


def gain_with(recipe: str, regularizer: str) -> str:
    """How a recipe's gain differs with a regularizer from that without."""
    weights = {f'{recipe}_{regularizer}': 1, f'small_{regularizer}': -1, recipe: -1, 'small': 1}
    return interval(compare.contrast(runs(), Contrast('', weights), 'test_top1'))


def help_sentences():
    """Does ALFA help?"""
    spread, doubled = paired(*ALFA), paired('small_alfa', 'small_double')
    ours, base = (compare.values(runs()[name], 'test_top1') for name in ALFA)
    p_value = ttest_1samp([ours[seed] - base[seed] for seed in base], 0).pvalue
    assert (spread.n, doubled.n, paired(*DOUBLED).n) == (6, 6, 6)

    yield 'ALFA improves top-1 by {} over standard training {}', points(*ALFA)
    yield 'p is {}, which', f'{p_value:.3f}'
    yield 'on the validation split the gain is {} {}', points(*ALFA, 'val_top1')
    yield 'with its loss doubled improves top-1 by {} {}', points(*DOUBLED)
    yield 'ALFA changes it by {} {}', points('small_alfa', 'small_double')
    yield 'gradient size change it by {} {} relative', points('small_alfa_mean', 'small')
    for label, start in (
        ('perturbing the features', 'perturbing the features, at equal gradient size'),
        ('doubling the gradient', 'doubling the gradient, with and without perturbation'),
    ):
        test, validation = (small_contrast(label, metric) for metric in ('test_top1', 'val_top1'))
        yield f'| {start} | {{}} | {{}} | {test.n} |', (interval(test), interval(validation))
    yield 'the perturbation adds ends at {}', f'{small_contrast("perturbing", "test_top1").high:.2f}'
    yield 'ALFA changes it by {} relative to standard training', interval(paired(*ALFA, 'test_loss'), 3)
    yield 'and by {} relative to the doubled loss', interval(paired('small_alfa', 'small_double', 'test_loss'), 3)
    for label, recipe in (('MoEx', 'small_moex'), ('label smoothing', 'small_smoothing'), ('mixup', 'small_mixup')):
        found = paired(recipe, 'small', 'test_loss')
        assert found.high < 0
        yield f'{label} ({{}})', f'{found.mean:.3f}'


def power_sentences():
    """How many pairs a gain takes."""
    std = paired(*ALFA).std
    pairs = [stats.pairs_needed(gain / std) for gain in (0.6, 0.5, 0.3)]
    yield 'standard deviation of {} points', f'{std:.2f}'
    sentence = 'a power of {{}} takes {} pairs for a gain of {{}} points, {} for {{}} and {} for {{}}'
    yield sentence.format(*pairs), ('0.8', '0.6', '0.5', '0.3')


def method_sentences():
    """Other methods."""
    rows = {
        'Gaussian noise, to standard training': ('small_noise', 'small'),
        'Gaussian noise, to the doubled loss': ('small_noise', 'small_double'),
        'ALFA, to Gaussian noise': ('small_alfa', 'small_noise'),
        'MoEx, to standard training': ('small_moex', 'small'),
        'ALFA, to MoEx': ('small_alfa', 'small_moex'),
        'ALFA 2/255, to standard training': ('small_alfa_step2', 'small'),
    }
    for label, pair in rows.items():
        found = paired(*pair)
        yield f'| {label} | {{}} | {found.n} |', interval(found)
    learned = [f'{paired("small_l_alfa", "small", seeds=[seed]).mean:.2f}' for seed in sorted(runs()['small_l_alfa'])]
    yield f'| L-ALFA, to standard training | {{}} and {{}} | {len(learned)} |', learned
    for label, recipe in (('ALFA that trains the tail only', 'small_alfa_tail'), ('AdvProp', 'small_advprop')):
        assert list(runs()[recipe]) == [0]
        found = paired(recipe, 'small')
        yield f'| {label}, to standard training | {{}} | {found.n} |', f'{found.mean:.2f}'

    by_seed = {seed: paired(*DOUBLED, seeds=[seed]).mean for seed in runs()['small']}
    assert by_seed[0] == max(by_seed.values())
    yield 'gain most ({} points)', f'{by_seed[0]:.2f}'
    assert paired('small_alfa', 'small_moex', 'test_loss').low > 0
    yield "its norm is {} against ALFA's {},", [f'{norm(recipe)[0]:.3f}' for recipe in ('small_noise', 'small_alfa')]


def regularizer_sentences():
    """With other regularizers."""
    for label, name in (('label smoothing', 'smoothing'), ('mixup', 'mixup')):
        alfa, base, double = f'small_alfa_{name}', f'small_{name}', f'small_double_{name}'
        assert paired(alfa, base).n == paired(double, base).n == 3
        yield (
            f'| {label} | {{}} | {{}} | {{}} | {{}} | {{}} |',
            (
                interval(paired(alfa, base)),
                gain_with('small_alfa', name),
                interval(paired(double, base)),
                gain_with('small_double', name),
                interval(paired(alfa, double)),
            ),
        )
    assert 'small_double_ema' not in runs()
    yield (
        '| EMA of the weights | {} | {} | not run',
        (interval(paired('small_alfa_ema', 'small_ema')), gain_with('small_alfa', 'ema')),
    )


def where_sentences():
    """Where to perturb."""
    block2 = 'small_alfa_block2'
    yield 'improves top-1 by {} over perturbing block 2 {}', points('small_alfa', block2)
    yield 'on the validation split it is {} {}', points('small_alfa', block2, 'val_top1')
    yield 'Block 2 changes top-1 by {} {} relative to standard training', points(block2, 'small')
    yield 'and by {} {} relative to the doubled loss', points(block2, 'small_double')

    preact = 'small_alfa_preact'
    first, later = range(3), range(3, 6)
    mean, _, rest = interval(paired(preact, 'small', seeds=first), n=True).partition(' ')
    yield 'did too: {} points {} over standard training', (mean, rest)
    yield 'after the ReLU, by {}.', interval(paired(preact, 'small_alfa', 'test_loss', first), 3)
    yield 'from that of ALFA after the ReLU by {}.', interval(paired(preact, 'small_alfa', 'test_loss', later), 3)
    for label, other in (
        ('standard training', 'small'),
        ('the doubled loss', 'small_double'),
        ('ALFA after the ReLU', 'small_alfa'),
    ):
        yield (
            f'| {label} | {{}} | {{}} |',
            (interval(paired(preact, other, seeds=later)), interval(paired(preact, other))),
        )
    assert norm(preact)[-1] < norm(preact)[0]


def width_sentences():
    """Step size and width."""
    for channels, width in (('4-8-16', 'quarter'), ('16-32-64', 'once')):
        gains = [interval(found, n=True) for _, _, found in plots.step_gains(TABLES[f'small_width_{width}'], runs())]
        yield f'| {channels} | {{}} | {{}} | {{}} |', gains

    names = {'0.5': 'small_alfa', '2': 'small_alfa_step2', '8': 'small_alfa_step8'}
    wide = {step: added(name, SHARED_SEEDS) for step, name in names.items()}
    narrow = {step: added(f'small_quarter_width_alfa_step{step}', SHARED_SEEDS) for step in names}
    ratios = [wide[step][0] / narrow[step][0] for step in wide]
    yield (
        'loses {} to {} times as much ({} against {} at 0.5/255)',
        (f'{min(ratios):.1f}', f'{max(ratios):.1f}', f'{wide["0.5"][0]:.3f}', f'{narrow["0.5"][0]:.3f}'),
    )
    yield (
        'it loses less ({} against {}, and {} against {} at 8/255)',
        [f'{losses[step][-1]:.3f}' for step in ('0.5', '8') for losses in (wide, narrow)],
    )
    yield 'the norm of delta falls from {} to {},', [f'{norm("small_alfa_step8")[at]:.1f}' for at in (0, -1)]
    yield 'and the added loss from {} to {}.', (f'{max(wide["8"]):.2f}', f'{wide["8"][-1]:.2f}')


def delta_sentences():
    """What delta does."""
    clean, gap = history('small_alfa', 'train_loss_clean'), added('small_alfa')
    peak = max(range(len(gap)), key=gap.__getitem__)
    expected = 5 * 0.5 / 255 * (64 * 8 * 8) ** 0.5
    assert norm('small_alfa') == pytest.approx([expected] * 60, abs=0.002)
    yield 'stays within {} of K alpha sqrt(d) = {} from the first', ('0.002', f'{expected:.3f}')
    yield f'peaks at {{}} in epoch {peak + 1}, {gap[peak] / clean[peak]:.0%} of the clean loss', f'{gap[peak]:.3f}'
    yield f'ends at {{}}, {gap[-1] / clean[-1]:.0%} of it', f'{gap[-1]:.3f}'


def eta_sentences():
    """Where L-ALFA perturbs."""
    etas = runs()['weights_resnet20s_l_alfa'][0]['history']['eta']
    assert len(etas[24]) == 9 and max(etas[24][:-1]) < 0.05
    yield 'ends at {} on the last one', f'{etas[-1][-1]:.3f}'
    first, second = (runs()['small_l_alfa'][seed]['history']['eta'][-1] for seed in (0, 1))
    yield 'ends at {} on the last unit but one and {} on the last', [f'{eta:.2f}' for eta in first[-2:]]
    yield 'with a second seed at {} and {};', [f'{eta:.2f}' for eta in second[-2:]]

    shipped = slopes('weights_resnet20s_l_alfa-s0')
    yield (
        '| as trained | {} | {} to {} |',
        (f'{shipped[-1]:.3f}', f'{min(shipped[:-1]):.2f}', f'{max(shipped[:-1]):.2f}'),
    )
    for seed in (0, 1):
        *others, before, last = slopes(f'small_l_alfa-s{seed}')
        yield (
            '| as trained | {} and {} | {} to {} |',
            (f'{before:.3f}', f'{last:.3f}', f'{min(others):.2f}', f'{max(others):.2f}'),
        )
    for name, sentence in (
        ('small_double_smoothing-s0', 'from {} at the stem to {} at the last feature'),
        ('small_quarter_width_double-s0', 'and from {} to {} in'),
    ):
        found = slopes(f'{name}_even')
        assert found == sorted(found, reverse=True)
        yield sentence, (f'{found[0]:.2f}', f'{found[-1]:.2f}')


def paper_sentences():
    """What the paper says."""
    table = TABLES['table2_resnet20s']
    yield 'gain on all of CIFAR-10, {} points', f'{table.paper_gain(table.rows[1], table.rows[0].recipe):.2f}'


def history(recipe: str, column: str, seeds: Optional[Sequence[int]] = None) -> list[float]:
    return plots.mean_history(runs()[recipe], column, seeds or list(runs()[recipe]))


def norm(recipe: str) -> list[float]:
    return history(recipe, 'delta_norm')


def added(recipe: str, seeds: Optional[Sequence[int]] = None) -> list[float]:
    """The loss that a recipe's perturbation adds, by epoch."""
    clean, adversarial = (history(recipe, f'train_loss_{part}', seeds) for part in ('clean', 'adv'))
    return [high - low for low, high in zip(clean, adversarial, strict=True)]


def slopes(name: str) -> list[float]:
    ((_, rows),) = [
        item
        for item in json.loads((RESULTS / 'benchmarks' / f'eta_slopes_{name}.json').read_text()).items()
        if item[0] != 'machine'
    ]
    return [row['slope there'] for row in rows]


SECTIONS = (
    help_sentences,
    power_sentences,
    method_sentences,
    regularizer_sentences,
    where_sentences,
    width_sentences,
    delta_sentences,
    eta_sentences,
    paper_sentences,
)


def sentences(section) -> list[str]:
    """What a section's numbers make of its sentences."""
    return [sentence.format(*([numbers] if isinstance(numbers, str) else numbers)) for sentence, numbers in section()]


@pytest.mark.parametrize('section', SECTIONS)
def test_numbers_are_those_of_the_records(section):
    for expected in sentences(section):
        assert expected in page(), f'results/README.md should say: {expected}'


def test_no_number_is_left_unchecked():
    rest = page()
    for section in SECTIONS:
        for expected in sentences(section):
            rest = rest.replace(expected, ' ')
    unchecked = set(re.findall(r'-?\d+\.\d+(?!/255)', re.sub(r'\d\.\d/255|layer\d\.\d', '', rest)))
    assert not unchecked, f'nothing checks {sorted(unchecked)} in results/README.md'


def test_links_lead_to_files():
    for target in re.findall(r'\]\(([^)#]+)\)', page()):
        assert (RESULTS / target).exists(), target


def test_remark_on_tables_4_and_5_has_their_numbers():
    note = TABLES['table4'].note
    for name in ('table4', 'table5_cifar10'):
        for row in TABLES[name].rows:
            assert f'{row.paper:.2f}' in note
