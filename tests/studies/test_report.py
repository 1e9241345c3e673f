"""The report on records made up for it."""
import pytest

from studies import records
from studies.evidence import by_condition, compare, conditions_of, stale
from studies.figures import draw_all
from studies.headers import headers, spans
from studies.jobs import Job
from studies.pages import page
from studies.rows import RECIPES
from studies.tables import TABLES
from studies.writing import write


def record(recipe, seed, top1, *, scale=1.0, device='cpu', precision=None, seconds=10.0, history=None, **more):
    job = Job(RECIPES[recipe], seed, scale, precision)
    known = dict(status='finished', test_top1=top1, val_top1=top1 + 1, epochs=job.options['epochs'], seconds=600.0,
                 seconds_per_epoch=seconds, mixed_precision=job.precision, device=device, commit='0123456789abcdef+',
                 versions=dict(torch='2.15.0', timm='1.0.31'), blocks=None)
    return dict(name=job.name, recipe=recipe, seed=seed, epochs_scale=scale, options=job.options, threads=1, jobs=2,
                history=history or {}, **{**dict.fromkeys(records.KEPT), **known, **more})


BASE = (72.3, 73.44, 73.0, 71.9)
GAINS = (0.62, 0.21, 0.67, 0.5)


def small(scale=1.0):
    found = [record('small', seed, base, scale=scale) for seed, base in enumerate(BASE)]
    return found + [record('small_alfa', seed, base + gain, scale=scale, seconds=11.0)
                    for seed, (base, gain) in enumerate(zip(BASE, GAINS, strict=True))]


def text(found, **more):
    return page(by_condition(found), stale(found), [], **more)


def line(page_text, start):
    return next(row for row in page_text.splitlines() if row.startswith(start))


def test_a_row_says_score_paired_difference_and_verdict():
    row = line(text(small()), '| ALFA 0.5/255 |')
    cells = [cell.strip() for cell in row.split('|')]
    assert cells[1:5] == ['ALFA 0.5/255', '73.16 ± 0.62', '4', 'standard']
    assert cells[5] == '+0.50 [+0.17, +0.83]'  # mean 0.5, deviation 0.2052, t 3.182
    assert 'held' in cells
    assert '11, 1.10x' in cells


def test_unpaired_seeds_are_not_compared():
    found = small()[:4] + [record('small_alfa', seed, 90.0) for seed in (7, 8, 9)]
    (_, runs), = by_condition(found).items()
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
    assert 'No claim has been put to the test' in shown


def test_a_shrunk_schedule_gives_a_table_but_no_claim():
    found = small(scale=0.5)
    shown = text(found)
    assert 'Schedule x 0.5, bf16, CPU: 8 runs, seeds 0-3, 1.3 hours' in shown
    assert 'No claim has been put to the test' in shown


def test_a_changed_recipe_leaves_its_runs_out():
    found = small()
    found[0]['options'] = {**found[0]['options'], 'lr': 0.3}
    shown = text(found)
    assert '`small-s0`' in shown.split('## Left out')[1]
    assert line(shown, '| standard |').split('|')[3].strip() == '3'


def test_a_claim_made_by_several_tables_counts_once():
    found = [record(name, seed, score + seed, device='NVIDIA H100') for seed in range(3)
             for name, score in (('cifar10_resnet18', 94.0), ('cifar10_resnet18_alfa_step1.0', 94.35 + seed / 100))]
    shown = text(found)
    assert 'Claims at full schedule: 1 held, 0 not held, 0 undecided.' in shown
    assert shown.count('| yes |') >= 2  # of +0.35 in tables 2, 4 ...


def test_a_loss_where_the_paper_has_a_gain_is_not_held_and_said_so():
    found = [record(name, seed, score + seed) for seed in range(3)
             for name, score in (('cifar100_resnet20s', 66.0), ('cifar100_resnet20s_alfa_step0.5', 65.0 + seed / 10))]
    shown = text(found)
    row = line(shown, '| ALFA | 67.79')
    assert 'not held' in row
    assert '| no |' in row
    assert '0 held, 1 not held, 0 undecided' in shown


def test_an_undecided_row_says_how_many_more():
    found = [record('small', seed, 70.0) for seed in range(4)]
    found += [record('small_alfa', seed, 70.0 + gain) for seed, gain in enumerate((0.5, -0.3, 0.4, 0.2))]
    cells = [cell.strip() for cell in line(text(found), '| ALFA 0.5/255 |').split('|')]
    assert cells[cells.index('undecided') + 1] == '23'  # effect 0.2 / 0.3559: 27 pairs in all is G*Power's, less 4


def test_notes_by_hand_and_unrun_tables_are_there():
    shown = text([], notes='We tried.')
    assert 'We tried.' in shown
    assert all(table.name in shown for table in TABLES.values())
    assert '| ALFA 0.5/255 | 92.52 | +1.27 | `cifar10_resnet20s_alfa_step0.5` |' in shown


def test_headers_say_score_seeds_time_device_versions_commit():
    (one,) = headers(small())['small_alfa']
    assert one == ('Here (full schedule, bf16, CPU): test top-1 73.16 ± 0.62; validation 74.16 ± 0.62; seeds 0-3, '
                   '60 epochs of 11 s on 1 CPU thread; torch 2.15.0, timm 1.0.31, commit 0123456789.')
    assert spans([5, 0, 1, 2, 8]) == '0-2, 5, 8'


def history(eta=False):
    columns = dict(train_loss=[2.0, 1.0], train_loss_clean=[1.0, 0.5], train_loss_adv=[1.1, 0.6], delta_norm=[0.1, 0.2])
    return {**columns, 'eta': [[0.5, 0.5], [0.3, 0.7]]} if eta else columns


def test_figures_appear_with_their_runs_and_go_with_them(tmp_path):
    found = [*small(), record('small_alfa_block1', 0, 70.0), record('cost', 0, 20.0, seconds=2.0),
             record('cost_alfa_1_k3', 0, 20.0, seconds=6.0),
             record('small_l_alfa', 0, 72.0, history=history(eta=True), blocks=['layer1', 'layer2'])]
    names = {path.name for path in draw_all(by_condition(found), tmp_path)}
    assert names == {'small_blocks_bf16_cpu.png', 'training_bf16_cpu.png', 'widths_bf16_cpu.png',
                     'eta_small_l_alfa_bf16_cpu.png', 'cost_fp32_cpu.png'}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert draw_all({}, tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_writing_twice_changes_nothing(tmp_path):
    for one in small():
        records.save(one, tmp_path / 'runs')
    list(write(tmp_path / 'runs', tmp_path, tmp_path / 'recipes'))
    first = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    *_, last = write(tmp_path / 'runs', tmp_path, tmp_path / 'recipes')
    assert last.endswith(': 0 changed')
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == first


def test_a_torn_record_is_no_record(tmp_path):
    records.save(small()[0], tmp_path)
    (tmp_path / 'small-s1.json').write_text('{"status": "fini')
    assert [one['name'] for one in records.load_all(tmp_path)] == ['small-s0']
    assert conditions_of(TABLES['small'], by_condition(records.load_all(tmp_path)))
