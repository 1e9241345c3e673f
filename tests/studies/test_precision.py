"""Tables of precision: from records with one bit per image, and only from those."""

from dataclasses import asdict

import numpy as np
import pytest

from studies import power, stats
from studies.precision import precision, with_bits
from studies.tables import TABLES
from timm_alfa.utils.bits import PackedBits

TABLE = TABLES['gradient']
CHANCES = dict(
    small_gradient=0.70,
    small_gradient_double=0.72,
    small_gradient_double_rate=0.72,
    small_gradient_alfa_mean=0.70,
    small_gradient_alfa=0.74,
)


def made_up(recipes=CHANCES, seeds=range(10, 20), images=200, unused=300):
    """Records by recipe and seed, with random bits."""
    random = np.random.default_rng(0)

    def record(chance):
        test, rest = (random.random(count) < chance for count in (images, unused))
        found = dict(test_correct=asdict(PackedBits.pack(test)), test_top1=100 * test.mean(), test_images=images)
        if unused:
            found.update(unused_correct=asdict(PackedBits.pack(rest)), unused_images=unused)
        return found

    return {recipe: {seed: record(chance) for seed in seeds} for recipe, chance in recipes.items()}


def lines(runs, table=TABLE):
    """Cells by the first one, over all tables."""
    rows = [row for part in precision(table, runs) for row in part.splitlines() if row.startswith('| ')]
    cells = [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]
    return {each[0]: each[1:] for each in cells}


def scores(runs, recipe):
    return np.stack([PackedBits(**record['test_correct']).unpack() for record in runs[recipe].values()]).astype(float)


def test_a_difference_on_all_unseen_images():
    runs = made_up(images=2000, unused=3000)
    found = lines(runs)["ALFA 0.5/255, reduction 'sum', to standard"]
    gains = []
    for ours, base in zip(runs['small_gradient_alfa'].values(), runs['small_gradient'].values(), strict=True):
        correct = [sum(each[f'{part}_correct']['correct'] for part in ('test', 'unused')) for each in (ours, base)]
        gains.append(100 * (correct[0] - correct[1]) / 5000)
    wanted = stats.paired(dict(enumerate(gains)), dict.fromkeys(range(10), 0.0))
    better = power.superiority(gains)
    assert found[:3] == ['5,000', f'{wanted.mean:+.2f} [{wanted.low:+.2f}, {wanted.high:+.2f}]', '10']
    assert found[3] == f'{better.probability:.2f} [{better.low:.2f}, {better.high:.2f}]'
    assert found[7] == str(power.pairs_for(0.2, wanted)) and int(found[7]) > int(found[9])


def test_spreads_are_those_of_the_test_split():
    runs = made_up()
    alone = power.spread(scores(runs, 'small_gradient'))
    assert lines(runs)['standard'] == ['10', f'{alone.observed:.2f}', f'{alone.images:.2f}', f'{alone.networks:.2f}']
    difference = power.spread(scores(runs, 'small_gradient_double') - scores(runs, 'small_gradient'))
    shown = lines(runs)['standard, loss doubled, to standard']
    assert shown[4:7] == [f'{value:.2f}' for value in (difference.observed, difference.images, difference.networks)]


def test_contrasts_of_four_rows():
    runs = made_up()
    found = lines(runs)['primary 2: doubling the gradient, with and without perturbation']
    double, base, alfa, mean = (
        scores(runs, f'small_gradient{name}') for name in ('_double', '', '_alfa', '_alfa_mean')
    )
    assert found[4] == f'{power.spread((double - base + alfa - mean) / 2).observed:.2f}'
    assert found[0] == '500' and found[2] == '10'


def test_without_unused_images_the_test_split_counts():
    assert lines(made_up(unused=0))['standard, loss doubled, to standard'][0] == '200'
    runs = made_up()
    del runs['small_gradient'][12]['unused_correct']
    found = lines(runs)
    assert found['standard, loss doubled, to standard'][0] == '200', 'one pair lacks them'
    assert found["ALFA 0.5/255, reduction 'sum', to standard, loss doubled"][0] == '500'


def test_records_without_bits_show_nothing_and_are_not_mixed_in():
    runs = made_up()
    for found in runs.values():
        for seed in range(13, 20):
            del found[seed]['test_correct']
    assert [*with_bits(runs, 'small_gradient')] == [10, 11, 12]
    cells = lines(runs)['standard, loss doubled, to standard']
    assert cells[2] == '3' and 'P(better) [95% CI]' not in ''.join(precision(TABLE, runs)), 'too few for a bootstrap'
    for found in runs.values():
        for record in found.values():
            record.pop('test_correct', None)
    assert not lines(runs)


@pytest.mark.parametrize('seeds', [[10], []])
def test_one_run_has_no_precision(seeds):
    assert not lines(made_up(seeds=seeds))


def test_test_splits_of_different_sizes_are_not_compared():
    runs = {**made_up(), **made_up({'small_gradient': 0.7}, images=100)}
    assert 'standard' in lines(runs) and 'standard, loss doubled, to standard' not in lines(runs)


def test_tables_about_cost_have_no_precision():
    runs = made_up({row.recipe: 0.5 for row in TABLES['cost'].rows})
    assert not lines(runs, TABLES['cost'])
