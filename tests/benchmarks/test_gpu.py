"""The script that needs a GPU, rehearsed on the CPU: parts end within their time and leave the others alone."""

import json
import signal
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from pathlib import Path

import pytest

from timm_alfa.training.checkpoint.store import CheckpointStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def gpu(load_script):
    return load_script('gpu')


@pytest.fixture(scope='module')
def gpu_parts(load_script):
    return load_script('gpu_parts')


@pytest.fixture(scope='module')
def gpu_runs(load_script):
    return load_script('gpu_runs')


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.sweep  # a minute or more
def test_check_rates_and_runs_are_rehearsed(tmp_path):
    results, parts = tmp_path / 'results', ('check', 'rates', 'runs', 'pack')
    words = ('--rehearse', '--parts', *parts, '--seconds', '500', '--results', str(results))
    subprocess.run([sys.executable, 'benchmarks/gpu.py', *words], cwd=ROOT, check=True, timeout=550)
    assert [row.get('all') for row in read_lines(results / 'check.jsonl')] == [None, None, None, True]
    rates = read_lines(results / 'rates.jsonl')
    assert [(row['precision'], row['together'], row['channels_last'], row['task']) for row in rates] == [
        (precision, *setting, task)
        for precision in ('bf16', 'no')
        for setting in ((1, True), (2, True), (1, False))
        for task in ('standard', 'alfa')
    ]
    assert all(row['images_per_second'] > 0 and row['bytes_per_update'] > 0 and row['share'] > 0 for row in rates)
    records = read_lines(results / 'runs.jsonl')
    assert {record['name'] for record in records} == {'standard-s0', 'doubled-s0', 'alfa-s0'}
    assert all(record['status'] == 'finished' and record['runs_together'] == 3 for record in records)
    assert all(record['cuda_graph'] and record['command'][0] == 'train.py' for record in records)
    with tarfile.open(results / 'tables.tar.gz') as archive:
        assert {'check.jsonl', 'rates.jsonl', 'runs.jsonl', 'parts.txt', 'runs.log'} <= set(archive.getnames())
    with tarfile.open(results / 'runs-1.tar.gz') as archive:
        assert 'alfa-s0/model_best.safetensors' in archive.getnames()


def test_a_part_that_takes_too_long_is_ended(gpu, tmp_path):
    began = time.monotonic()
    slow = gpu.Part('slow', 1, ('-c', 'import time; print("begun", flush=True); time.sleep(60)'))
    assert gpu.run(slow, 6.0, tmp_path) == 'exit -15'
    assert time.monotonic() - began < 20
    assert (tmp_path / 'slow.log').read_text() == 'begun\n'
    assert gpu.run(gpu.Part('bad', 1, ('-c', 'raise SystemExit(3)')), 30.0, tmp_path) == 'exit 3'


def test_a_signal_of_its_own_comes_first(gpu, tmp_path):
    """pytest prints its summary after SIGINT."""
    code = 'import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print("summary", flush=True)'
    slow = gpu.Part('slow', 1, ('-c', code), signal=signal.SIGINT, grace=10)
    assert gpu.run(slow, 14.0, tmp_path) == 'done'
    assert (tmp_path / 'slow.log').read_text() == 'summary\n'


@pytest.mark.parametrize(
    ('rows', 'works'),
    [
        (None, True),  # an earlier call was without it
        ([{'began': 'GPU'}], False),  # it hung, or crashed
        ([{'began': 'GPU'}, {'task': 'standard', 'captured': True}], False),
        ([{'began': 'GPU'}, {'all': False}], False),
        ([{'began': 'GPU'}, {'all': False}, {'began': 'GPU'}, {'all': True}], True),
    ],
)
def test_whether_graphs_work(rows, works, gpu, tmp_path):
    if rows is not None:
        (tmp_path / 'check.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    assert gpu.graphs_work(tmp_path) == works


def test_parts_run_without_graphs_after_a_failed_check(gpu, tmp_path, monkeypatch, capsys):
    """In a later call, too; a last part without enough time is no failure."""
    (tmp_path / 'check.jsonl').write_text('{"all": false}')
    ran = []
    monkeypatch.setattr(gpu, 'run', lambda part, seconds, results: ran.append(part) or 'done')
    args = Namespace(results=tmp_path, work=tmp_path, archives=tmp_path, dataset='', rehearse=False, together=None)
    args.seeds = None
    args.seconds, args.cuda_graph = 100.0, None
    args.parts = ('check', 'tests', 'rates', 'ratios', 'runs', 'pack', 'compiled')
    assert gpu.run_in_turn(gpu.parts(args), args) == 0
    assert [part.name for part in ran] == ['check', 'rates', 'rates', 'ratios', 'runs', 'pack']
    assert '--cuda-graph' in ran[0].words and not any('--cuda-graph' in part.words for part in ran[1:])
    assert all('--no-cuda-graph' in part.words for part in ran if part.name in ('rates', 'runs'))
    assert 'tests: left out: it needs graphs' in capsys.readouterr().out

    ran.clear()
    args.cuda_graph, args.seconds, args.parts = True, 45.0, ('pack', 'compiled')
    assert gpu.run_in_turn(gpu.parts(args), args) == 0
    assert [part.name for part in ran] == ['pack']


def test_a_check_that_cannot_capture_says_why(gpu_parts, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError('operation not permitted when stream is capturing')

    monkeypatch.setattr(gpu_parts, 'noise_run', fail)
    assert not gpu_parts.check(Namespace(results=tmp_path))
    rows = read_lines(tmp_path / 'check.jsonl')
    assert rows[1]['error'] == 'RuntimeError: operation not permitted when stream is capturing'
    assert rows[-1] == {'all': False}


def rate(task, images_per_second, together, channels_last=True):
    row = {'precision': 'bf16', 'task': task, 'together': together, 'images_per_second': images_per_second}
    return json.dumps({**row, 'channels_last': channels_last})


def test_as_many_seeds_as_fit(gpu_runs, tmp_path):
    """The rate is that of as many runs together as there would be, not that of the most."""
    rates = (rate('standard', 100_000, 1), rate('standard', 200_000, 4), rate('standard', 400_000, 12))
    rates += (rate('alfa', 100_000, 1), rate('alfa', 150_000, 4), rate('alfa', 225_000, 12))
    (tmp_path / 'rates.jsonl').write_text('\n'.join(rates))
    args = Namespace(rehearse=False, results=tmp_path, cuda_graph=True, seeds=None, together=12)

    def planned(seconds):
        return gpu_runs.make_plan(args, seconds)[:2]

    # one seed, at the rates of one run: 9e6 * (2 + 1) / 100,000 = 270 s, and 3 * 200 epochs end in 18 s
    assert planned(304) == (1, 1.0)
    # two, at those of four: 2 * 150 + 36 = 336 s; four, at those of twelve, 4 * 85 + 72 = 412 s
    assert planned(355) == (2, 1.0) and planned(435) == (4, 1.0) and planned(432) == (2, 1.0)
    # half the epochs, of as many seeds as that allows
    assert planned(302) == (4, 0.5) and planned(153) == (1, 0.5)
    assert 'NOT EVEN' in gpu_runs.make_plan(args, 100).reason
    # in turns, all at the rates of one
    args.together = 1
    assert planned(435) == (1, 1.0)
    # nothing measured
    args.results = tmp_path / 'nothing'
    assert planned(9999) == (1, 1.0)


def test_runs_use_the_faster_memory_format(gpu_runs, tmp_path):
    """As compared where both were measured; more runs together were measured in one of them only."""
    args = Namespace(rehearse=False, results=tmp_path, cuda_graph=True, seeds=None, together=12)
    args.work, args.dataset = tmp_path, 'hfds//folder'
    for contiguous, faster in ((110_000, False), (90_000, True)):
        last = (rate('standard', 100_000, 6), rate('alfa', 100_000, 6), rate('alfa', 200_000, 12))
        other = [rate(task, contiguous, 6, channels_last=False) for task in ('standard', 'alfa')]
        (tmp_path / 'rates.jsonl').write_text('\n'.join((*last, *other)))
        plan = gpu_runs.make_plan(args, 9999)
        words = next(iter(gpu_runs.command_lines(args, plan).values()))
        assert plan.channels_last == faster == ('--channels-last' in words)


def test_half_the_schedule_is_that_of_the_recipe(gpu_runs, tmp_path):
    """And train.py's parser takes the words; the folder is the one that studies/run.py looks for."""
    from studies.jobs import make_jobs
    from timm_alfa.training.options.train_args import parse_args

    args = Namespace(rehearse=False, cuda_graph=True, work=tmp_path, dataset='hfds//folder')
    words = gpu_runs.command_lines(args, gpu_runs.Plan(2, 0.5, ''))
    jobs = make_jobs(gpu_runs.RECIPE_OF.values(), [0, 1], 0.5, 'bf16')
    assert sorted(words) == sorted(job.folder for job in jobs)
    for name, own in words.items():
        config = parse_args(own)
        assert (config.run.experiment, config.data.dataset) == (name, 'hfds//folder')
        assert (config.epochs, tuple(config.schedule.decay_milestones)) == (100, (25, 75))
        assert config.model.cuda_graph and config.model.channels_last and config.run.resume == 'auto'


def test_runs_without_graphs_are_processes(gpu_runs, tmp_path, monkeypatch):
    """One that fails leaves the others; each has a row."""
    script = tmp_path / 'train.py'
    script.write_text(
        'import pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\nfolder.mkdir()\n'
        'sys.exit(3) if folder.name == "b" else (folder / "result.json").write_text(\'{"status": "finished"}\')\n'
    )
    monkeypatch.setattr(gpu_runs.signal, 'signal', lambda *_: None)
    words = {name: [str(tmp_path / name)] for name in ('a', 'b')}
    gpu_runs.in_processes(Namespace(results=tmp_path, work=tmp_path), words, script)
    found = [(row['name'], row['status']) for row in read_lines(tmp_path / 'runs.jsonl')]
    assert found == [('a', 'finished'), ('b', 'unfinished')]


def test_archives_stay_small(gpu_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_runs, 'ARCHIVE_SIZE', 1000)
    monkeypatch.setattr(gpu_runs, 'ARCHIVES', 2)
    results, work = tmp_path / 'results', tmp_path / 'work'
    results.mkdir()
    for name in ('a', 'b', 'c', 'd', 'e'):
        (work / name).mkdir(parents=True)
        (work / name / 'model_best.safetensors').write_bytes(bytes(400))
        (work / name / 'result.json').write_text('{}')
    gpu_runs.pack(Namespace(archives=results, work=work))
    packed = []
    for path in sorted(results.glob('*.tar.gz')):
        with tarfile.open(path) as archive:
            packed.append(archive.getnames())
    assert packed[0][:5] == [f'{name}/result.json' for name in 'abcde']
    assert [sum('safetensors' in name for name in names) for names in packed] == [2, 2]


def test_states_of_unfinished_runs_come_back(gpu_runs, tmp_path):
    """The newest complete one, if there is no record."""
    results, work = tmp_path / 'results', tmp_path / 'work'
    results.mkdir()
    for run in ('done', 'unfinished'):
        (work / run).mkdir(parents=True)
        for updates in (10, 20):
            CheckpointStore(work / run / 'last', keep=2).write(updates, lambda folder: (folder / 'x').write_bytes(b'x'))
    (work / 'done' / 'result.json').write_text('{}')
    gpu_runs.pack(Namespace(archives=results, work=work))
    with tarfile.open(results / 'runs-1.tar.gz') as archive:
        states = [name for name in archive.getnames() if '/last/' in name]
    assert sorted(states) == [f'unfinished/last/000002-update-20/{name}' for name in ('COMPLETE', 'x')]
