"""The report on made-up records."""

import math

import pytest

from studies import records
from studies.compare import by_condition, compare, conditions_of, stale
from studies.figures import figures, write_figures
from studies.formats import seed_ranges
from studies.headers import headers
from studies.jobs import Job
from studies.pages import page
from studies.plots import mean_history
from studies.recipes import RECIPES
from studies.report import write
from studies.tables import TABLES


def record(recipe, seed, top1, *, scale=1.0, device='cpu', precision=None, seconds=10.0, history=None, **more):
    job = Job(RECIPES[recipe], seed, scale, precision)
    known = dict(
        status='finished',
        test_top1=top1,
        val_top1=top1 + 1,
        epochs=job.options['epochs'],
        seconds=600.0,
        seconds_per_epoch=seconds,
        mixed_precision=job.precision,
        device=device,
        commit='0123456789abcdef+',
        versions=dict(torch='2.15.0', timm='1.0.31'),
        blocks=None,
    )
    return {
        **dict.fromkeys(records.KEPT),
        **known,
        'name': job.name,
        'recipe': recipe,
        'seed': seed,
        'epochs_scale': scale,
        'options': job.options,
        'threads': 1,
        'jobs': 2,
        'history': history or {},
        **more,
    }


BASE = (72.3, 73.44, 73.0, 71.9)
GAINS = (0.62, 0.21, 0.67, 0.5)


def small(history=None, scale=1.0):
    found = [record('small', seed, base, scale=scale, history=history) for seed, base in enumerate(BASE)]
    return found + [
        record('small_alfa', seed, base + gain, scale=scale, seconds=11.0, history=history)
        for seed, (base, gain) in enumerate(zip(BASE, GAINS, strict=True))
    ]


def text(found):
    return page(by_condition(found), stale(found), [])


def line(page_text, start):
    return next(row for row in page_text.splitlines() if row.startswith(start))


def test_row_shows_score_paired_difference_and_verdict():
    row = line(text(small()), '| ALFA 0.5/255 |')
    cells = [cell.strip() for cell in row.split('|')]
    assert cells[1:5] == ['ALFA 0.5/255', '73.16 ± 0.62', '4/6', 'standard']
    assert cells[5:8] == ['+0.50 [+0.17, +0.83]', '4', 'held']  # mean 0.5, std 0.2052, t 3.182


def test_seconds_are_shown_in_tables_about_time_and_compared_on_equal_terms():
    def shown(**more):
        return line(
            text(
                [
                    record('cost', 0, 20.0, seconds=2.0, jobs=1),
                    record('cost_alfa_1_k3', 0, 20.0, **{'seconds': 6.0, 'jobs': 1, **more}),
                ]
            ),
            '| ALFA, block 1, K=3 |',
        )

    assert '| 6, 3.00x |' in shown()
    for other in (dict(jobs=2), dict(threads=2)):
        assert '| 6 |' in shown(**other)
    assert 's/epoch' not in text(small())


def test_unpaired_seeds_are_not_compared():
    found = small()[:4] + [record('small_alfa', seed, 90.0) for seed in (7, 8, 9)]
    ((_, runs),) = by_condition(found).items()
    table = TABLES['small']
    row = next(row for row in table.rows if row.recipe == 'small_alfa')
    assert all(c.difference is None and c.verdict is None for c in compare(table, row, runs))


@pytest.mark.parametrize('other', [dict(scale=0.5), dict(device='NVIDIA H100'), dict(precision='no')])
def test_scales_devices_and_precisions_are_never_mixed(other):
    found = [record('small', seed, base) for seed, base in enumerate(BASE)]
    found += [record('small_alfa', seed, base + 9, **other) for seed, base in enumerate(BASE)]
    groups = by_condition(found)
    assert len(groups) == 2
    assert all(len(runs) == 1 for runs in groups.values())
    shown = text(found)
    assert '+9.00' not in shown
    assert shown.count('no claim has been tested') == 2


def test_shortened_schedule_gives_a_table_but_no_verdict():
    shown = text(small(scale=0.5))
    assert 'The small-data protocol, schedule x 0.5, bf16, CPU: 8 runs, seeds 0-3, 1.3 hours' in shown
    assert shown.count('no claim has been tested') == 2
    assert '| held |' not in shown


def test_shortened_schedule_is_not_compared_with_the_paper():
    found = [
        record(name, seed, score + seed, scale=0.05, device='NVIDIA H100')
        for seed in range(3)
        for name, score in (('cifar10_resnet20s', 60.0), ('cifar10_resnet20s_alfa_step0.5', 61.27 + seed / 100))
    ]
    row = line(text(found), '| ALFA |')
    assert '+1.28' in row
    assert not any(word in row for word in ('92.52', 'held', '| yes |', '| no |', '+1.27 |'))


def test_runs_of_a_changed_recipe_are_left_out():
    found = small()
    found[0]['options'] = {**found[0]['options'], 'lr': 0.3}
    shown = text(found)
    assert '`small-s0`' in shown.split('## Left out')[1]
    assert line(shown, '| standard |').split('|')[3].strip() == '3/6'


def test_claim_of_several_tables_counts_once():
    found = [
        record(name, seed, score + seed, device='NVIDIA H100')
        for seed in range(3)
        for name, score in (('cifar10_resnet18', 94.0), ('cifar10_resnet18_alfa_step1.0', 94.35 + seed / 100))
    ]
    shown = text(found)
    assert "The paper's protocol: 1 held, 0 not held, 0 undecided." in shown
    assert 'The small-data protocol: no claim' in shown
    assert shown.count('| yes |') >= 2  # of +0.35 in tables 2, 4 ...


def test_verdicts_are_counted_per_protocol():
    paper = [
        record(name, seed, score + seed, device='NVIDIA H100')
        for seed in range(3)
        for name, score in (('cifar10_resnet18', 94.0), ('cifar10_resnet18_alfa_step1.0', 94.35 + seed / 100))
    ]
    shown = text([*small(), *paper])
    assert "The paper's protocol: 1 held, 0 not held, 0 undecided." in shown
    assert 'The small-data protocol: 1 held, 0 not held, 0 undecided.' in shown


def test_alfa_is_compared_with_the_doubled_loss_wherever_losses_are_summed():
    found = small() + [
        record('small_double', seed, base + gain)
        for seed, (base, gain) in enumerate(zip(BASE, (0.6, 0.3, 0.6, 0.4), strict=True))
    ]
    for name in ('small', 'small_blocks', 'small_regularisers', 'small_width_once'):
        table = TABLES[name]
        alfa = next(row for row in table.rows if row.recipe == 'small_alfa')
        yardsticks = {'small_double'} if name == 'small_width_once' else {'small', 'small_double'}
        assert yardsticks <= set(table.against(alfa)), name
    shown = text(found)
    assert 'The small-data protocol: 1 held, 0 not held, 1 undecided.' in shown


def test_contrasts_are_shown_in_loss_and_validation_too():
    gains = dict(small=0.0, small_alfa=1.51, small_double=1.0, small_alfa_mean=0.2)
    found = [
        record(
            name, seed, base + gain + 0.1 * seed * (name == 'small_double'), test_loss=1 - gain, val_top1=50 + 2 * gain
        )
        for seed, base in enumerate(BASE)
        for name, gain in gains.items()
    ]
    # halves of (1.51 - 1 - 0.1 seed) + (0.2 - 0), and of (1 + 0.1 seed - 0) + (1.51 - 0.2)
    shown = text(found)
    assert line(shown, '| perturbing the features').split('|')[2:6] == [
        ' +0.28 [+0.18, +0.38] ',
        ' -0.355 [-0.355, -0.355] ',
        ' +0.71 [+0.71, +0.71] ',
        ' 4 ',
    ]
    assert ' +1.23 [+1.13, +1.33] ' in line(shown, '| doubling the gradient')
    without = text([one for one in found if one['recipe'] != 'small_alfa_mean'])
    assert 'several rows together' not in without, 'a part of the sum is missing'


def test_difference_is_shown_on_the_validation_split_too():
    found = [
        record(name, seed, base + gain, val_top1=60 + gain * (seed + 1))
        for seed, base in enumerate(BASE)
        for name, gain in dict(small=0.0, small_alfa=0.4).items()
    ]
    row = line(text(found).split('## small')[1], '| ALFA 0.5/255').split('|')
    assert row[5].strip() == '+0.40 [+0.40, +0.40]' and row[-2].strip() == '+1.00 [+0.18, +1.82]'


def test_weights_of_a_contrast_sum_to_zero_over_rows_of_its_table():
    for table in TABLES.values():
        for one in table.contrasts:
            assert {*one.weights} <= {row.recipe for row in table.rows}, one.label
            assert sum(one.weights.values()) == 0, one.label


def test_runs_in_several_tables_are_counted_once():
    summary = text(small()).split('## Verdicts')[1].split('## small')[0]
    assert '8 runs, 1.3 hours of 1 CPU thread' in summary
    assert 'By chance alone 0.0 of the 1 claims with enough pairs would be held.' in summary


def test_commits_of_a_resumed_run_and_uncommitted_changes_are_shown():
    (one,) = headers([record('small', 0, 70.0, commit=f'{"a" * 40}, {"b" * 40}+')])['small']
    assert one.endswith('commits aaaaaaaaaa bbbbbbbbbb+.')


def test_loss_where_the_paper_has_a_gain_is_not_held():
    found = [
        record(name, seed, score + seed)
        for seed in range(3)
        for name, score in (('cifar100_resnet20s', 66.0), ('cifar100_resnet20s_alfa_step0.5', 65.0 + seed / 10))
    ]
    shown = text(found)
    row = line(shown, '| ALFA | 67.79')
    assert 'not held' in row
    assert '| no |' in row
    assert '0 held, 1 not held, 0 undecided' in shown


def test_undecided_row_says_how_many_more_pairs():
    found = [record('small', seed, 70.0) for seed in range(4)]
    found += [record('small_alfa', seed, 70.0 + gain) for seed, gain in enumerate((0.5, -0.3, 0.4, 0.2))]

    def more(found):
        cells = [cell.strip() for cell in line(text(found), '| ALFA 0.5/255 |').split('|')]
        return cells[cells.index('undecided') + 1]

    assert more(found) == '23'  # effect 0.2 / 0.3559: 27 pairs in all is G*Power's, less 4
    assert more(found[:1] + found[4:5]) == 'at least 2'  # one pair has no standard deviation


def test_tables_without_runs_show_the_papers_numbers():
    shown = text([])
    assert all(table.name in shown for table in TABLES.values())
    assert '| ALFA 0.5/255 | 92.52 | +1.27 | `cifar10_resnet20s_alfa_step0.5` |' in shown


def test_header_shows_score_seeds_time_device_versions_and_commit():
    (one,) = headers(small())['small_alfa']
    assert one == (
        'Our runs (bf16, CPU): test top-1 73.16 ± 0.62; validation 74.16 ± 0.62; seeds 0-3, '
        '60 epochs of 11 s on 1 CPU thread (up to 2 runs at a time); torch 2.15.0, timm 1.0.31, '
        'commit 0123456789+.'
    )
    assert seed_ranges([5, 0, 1, 2, 8]) == '0-2, 5, 8'


def history(eta=False):
    columns = dict(train_loss=[2.0, 1.0], train_loss_clean=[1.0, 0.5], train_loss_adv=[1.1, 0.6], delta_norm=[0.1, 0.2])
    return {**columns, 'eta': [[0.5, 0.5], [0.3, 0.7]]} if eta else columns


def draw(found, folder):
    """Writes the figures of some records; returns their names."""
    shown = figures(by_condition(found))
    write_figures(shown, folder)
    assert {path.name for path in folder.glob('*.png')} == {f'{figure.name}.png' for figure in shown}
    return {figure.name for figure in shown}


def test_figures_appear_and_disappear_with_their_runs(tmp_path):
    found = [
        *small(history()),
        record('small_alfa_block1', 0, 70.0),
        record('cost', 0, 20.0, seconds=2.0, jobs=1),
        record('cost_alfa_1_k3', 0, 20.0, seconds=6.0, jobs=1),
        record('small_double', 0, 72.0),
        record('small_alfa_step8', 0, 70.0),
        record('small_half_width_double', 0, 65.0),
        *(record(f'small_half_width_alfa_step{step}', 0, 66.0) for step in ('0.5', '8')),
        record('small_l_alfa', 0, 72.0, history=history(eta=True), blocks=['layer1', 'layer2']),
    ]
    assert draw(found, tmp_path) == {
        'small_blocks_bf16_cpu',
        'training_bf16_cpu',
        'widths_bf16_cpu',
        'eta_small_l_alfa_bf16_cpu',
        'cost_fp32_cpu',
    }
    for name, other in (('widths', 'half'), ('small_blocks', 'block1')):
        fewer = draw([one for one in found if other not in one['name']], tmp_path)
        assert f'{name}_bf16_cpu' not in fewer, 'one row cannot be compared with others'
    assert draw([], tmp_path) == set()
    assert not list(tmp_path.iterdir())


def test_captions_differ_and_name_the_recipe():
    found = [*small(history()), record('small_l_alfa', 0, 72.0, history=history(eta=True), blocks=['a', 'b'])]
    captions = {figure.name: figure.caption for figure in figures(by_condition(found))}
    assert captions['eta_small_l_alfa_bf16_cpu'].startswith('small_l_alfa: eta ')
    assert len(set(captions.values())) == len(captions) == 2


def test_whatever_a_method_reports_per_block_is_drawn():
    steps = dict(history(), step_size=[[0.1, 0.2], [0.1, 0.3]])
    found = [record('small_alfa_block2-3', 0, 72.0, history=steps, blocks=['layer2', 'layer3'])]
    assert 'step_size_small_alfa_block2-3_bf16_cpu' in {figure.name for figure in figures(by_condition(found))}


def test_epoch_without_a_value_keeps_its_place():
    runs = {0: dict(history=dict(delta_norm=[None, 1.0])), 1: dict(history=dict(delta_norm=[None, 2.0]))}
    first, second = mean_history(runs, 'delta_norm', (0, 1))
    assert math.isnan(first) and second == 1.5


def test_committed_report_is_up_to_date():
    found = records.load_all()
    groups = by_condition(found)
    shown = figures(groups)
    results = records.RUNS.parent
    assert {figure.name for figure in shown} == {path.stem for path in (results / 'figures').glob('*.png')}
    committed = (results / 'report.md').read_text(encoding='utf-8')
    assert page(groups, stale(found), shown) == committed, 'run `python studies/report.py`'


def test_writing_twice_changes_nothing(tmp_path):
    for one in small():
        records.save(one, tmp_path / 'runs')
    list(write(tmp_path / 'runs', tmp_path, tmp_path / 'recipes'))
    first = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    _, *lines = write(tmp_path / 'runs', tmp_path, tmp_path / 'recipes')
    assert len(lines) == 3 and all(line.endswith(': 0 changed') for line in lines)
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == first


def test_truncated_record_is_skipped(tmp_path):
    records.save(small()[0], tmp_path)
    (tmp_path / 'small-s1.json').write_text('{"status": "fini')
    assert [one['name'] for one in records.load_all(tmp_path)] == ['small-s0']
    assert conditions_of(TABLES['small'], by_condition(records.load_all(tmp_path)))
