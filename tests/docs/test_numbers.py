"""Figures in the documentation are those of results/."""

import json
import sys

import pytest
from pages import ROOT, on_one_line, table_rows

sys.path[:0] = [str(ROOT), str(ROOT / 'docs' / 'figures')]

import draw_method
import draw_results
import weights_page

from studies import stats

GAIN = {'small_alfa': 1, 'small': -1}
DOUBLED = {'small_double': 1, 'small': -1}
AGAINST_DOUBLED = {'small_alfa': 1, 'small_double': -1}
PERTURBING = {'small_alfa': 0.5, 'small_double': -0.5, 'small_alfa_mean': 0.5, 'small': -0.5}
DOUBLING = {'small_double': 0.5, 'small': -0.5, 'small_alfa': 0.5, 'small_alfa_mean': -0.5}
AGAINST_NOISE = {'small_alfa': 1, 'small_noise': -1}
LAST_BLOCK = {'small_alfa': 1, 'small_alfa_block2': -1}
BLOCK_2 = {'small_alfa_block2': 1, 'small_double': -1}
LARGE_STEPS = {'small_double': 1, 'small_alfa_step8': -1}
CI = '(95% CI {low} to {high}, n={n})'
CI_ALONE = '(95% CI {low} to {high}'
# page, weights of the recipes, sentence
CLAIMS = [
    ('README.md', GAIN, 'ALFA improves top-1 by {mean} points over standard training ' + CI),
    ('README.md', DOUBLED, 'with its loss doubled improves top-1 by {mean} points ' + CI),
    ('README.md', PERTURBING, 'the perturbation itself changes top-1 by {mean} points ' + CI_ALONE),
    ('docs/reproducing.md', GAIN, 'ALFA improves top-1 by {mean} points over standard training ' + CI),
    ('docs/reproducing.md', DOUBLED, 'with its loss doubled improves top-1 by {mean} points ' + CI),
    ('docs/reproducing.md', AGAINST_DOUBLED, 'ALFA changes it by {mean} points ' + CI),
    ('docs/reproducing.md', PERTURBING, 'gradient size changes top-1 by {mean} points ' + CI_ALONE),
    ('docs/reproducing.md', DOUBLING, 'doubling the gradient by {mean} ' + CI_ALONE),
    ('docs/reproducing.md', AGAINST_NOISE, 'ALFA changes top-1 by {mean} points ' + CI),
    ('docs/blocks.md', LAST_BLOCK, 'than the block before it, by {mean} points ' + CI),
    ('docs/blocks.md', AGAINST_DOUBLED, 'the last block changes top-1 by {mean} points ' + CI),
    ('docs/blocks.md', BLOCK_2, 'the one before it by {mean} ' + CI),
]


def scores() -> dict[str, dict[int, float]]:
    """Test top-1 by recipe and seed."""
    found: dict[str, dict[int, float]] = {}
    for path in (ROOT / 'results' / 'runs').glob('small*.json'):
        record = json.loads(path.read_text(encoding='utf-8'))
        found.setdefault(record['recipe'], {})[record['seed']] = record['test_top1']
    return found


@pytest.mark.parametrize(('page', 'weights', 'sentence'), CLAIMS)
def test_claims_are_what_the_runs_give(page, weights, sentence):
    runs = scores()
    found = stats.contrast([(factor, runs[recipe]) for recipe, factor in weights.items()])
    numbers = dict(mean=f'{found.mean:.2f}', low=f'{found.low:.2f}', high=f'{found.high:.2f}', n=found.n)
    expected = sentence.format(**numbers)
    assert expected in on_one_line(page), f'{page} should say: {expected}'


def test_large_steps():
    found = stats.contrast([(factor, scores()[recipe]) for recipe, factor in LARGE_STEPS.items()])
    expected = (
        f'{found.mean:.1f} points against a doubled loss (95% CI {found.low:.1f} to {found.high:.1f}, n={found.n})'
    )
    assert expected in on_one_line('docs/blocks.md')


# cost

VARIANTS = {"`l_alfa`, `mode='joint'` (default)": 'l_alfa joint', "`l_alfa`, `mode='separate'`": 'l_alfa'}
MODELS = ('resnet18_cifar', 'resnet56s', 'resnet50', 'efficientnet_b0', 'vit_tiny_patch16_224')


def costs(quantity: str) -> dict[str, dict[str, float]]:
    """What a step costs, relative to a standard one, by variant and model."""
    table = json.loads((ROOT / 'results' / 'benchmarks' / 'step_cost.json').read_text(encoding='utf-8'))
    found: dict[str, dict[str, float]] = {}
    for row in table['Methods']:
        found.setdefault(row['variant'], {})[row['model']] = row[quantity]
    return found


def as_shown(value: float) -> str:
    """Three digits, or two from two on, or whole numbers from ten on."""
    return f'{value:.2f}' if value < 2 else f'{value:.1f}' if value < 10 else f'{value:.0f}'


def test_the_tables_of_cost():
    page = (ROOT / 'docs' / 'cost.md').read_text(encoding='utf-8')
    for quantity in ('time', 'FLOPs'):
        found = costs(quantity)
        for name in ('alfa', 'noise', 'moex', 'advprop', 'adv_train', *VARIANTS):
            label = name if name in VARIANTS else f'`{name}`'
            values = [as_shown(found[VARIANTS.get(name, name)][model]) for model in MODELS]
            row = f'| {label} | {" | ".join(values)} |'
            assert row in page, f'docs/cost.md should have: {row}'


def on_gpu(*flags: str) -> dict[str, dict[str, dict]]:
    """Rows measured on a GPU, by model and variant."""
    name = '_'.join(('step_cost', 'gpu', 'amp', 'channels_last', *flags))
    table = json.loads((ROOT / 'results' / 'benchmarks' / f'{name}.json').read_text(encoding='utf-8'))
    found: dict[str, dict[str, dict]] = {}
    for row in table['Methods']:
        found.setdefault(row['model'], {})[row['variant']] = row
    return found


def test_the_table_of_times_on_a_gpu():
    graphs, eager = on_gpu('cuda_graph'), on_gpu()
    page, readme = (ROOT / 'docs' / 'cost.md').read_text(encoding='utf-8'), on_one_line('README.md')
    for model, found in graphs.items():
        cells = []
        for rows in (found, eager.get(model)):
            times = [f'{rows[variant]["ms"]:#.3g} ms' for variant in ('standard', 'alfa')] if rows else ['', '']
            cells += [*times, f'{rows["alfa"]["time"]:.2f}' if rows else '']
        line = next(line for line in page.splitlines() if line.startswith(f'| `{model}`, '))
        assert [cell.strip() for cell in line.split('|')[2:-1]] == cells
        assert f'{found["alfa"]["time"]:.2f} (ResNet-' in readme
    assert all(f'{rows["alfa"]["time"]:.1f} on the two small networks' in readme for rows in eager.values())


def test_the_ranges_in_the_readme():
    found = costs('time')
    for name, _, cost, _ in table_rows('README.md', 'task'):
        variant = name.strip('`')
        if variant != 'standard' and variant in found:
            values = found[variant].values()
            assert f'{as_shown(min(values))} to {as_shown(max(values))}' in cost, name
    joint = found['l_alfa joint'].values()
    assert f'{min(joint):.1f} to {max(joint):.1f} on nine blocks' in on_one_line('README.md')


def test_shipped_weights():
    rows = {row['name']: row for row in json.loads((ROOT / 'timm_alfa/zoo/manifest.json').read_text())}
    for page in ('README.md', 'docs/publishing.md'):
        shown = {cells[0].strip('`'): cells for cells in table_rows(page, 'name')}
        assert shown.keys() == rows.keys()
        for name, cells in shown.items():
            assert str(rows[name]['top1']) in cells


# figures


def test_the_page_of_the_weights_is_that_of_the_manifest():
    assert weights_page.PAGE.read_text(encoding='utf-8') == weights_page.page(), 'run docs/figures/weights_page.py'


@pytest.mark.parametrize('script', [draw_method, draw_results])
def test_figures_are_those_that_the_script_draws(script, tmp_path):
    script.main(tmp_path)
    drawn = sorted(tmp_path.iterdir())
    assert drawn
    for path in drawn:
        kept = ROOT / 'docs' / 'figures' / path.name
        assert kept.read_bytes() == path.read_bytes(), f'run python docs/figures/{script.__name__}.py'
