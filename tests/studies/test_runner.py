"""The runner against a stand-in for train.py: order, skipping, failing, killing."""
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies import processes, records
from studies.jobs import Job, make_jobs
from studies.rows import RECIPES
from studies.runner import Runner

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from drive import fake_command


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr('studies.runner.POLL', 0.02)
    return processes.Workplace(tmp_path, tmp_path / 'runs', slots=2)


def use(monkeypatch, seconds=0.0, failing=''):
    monkeypatch.setattr(processes, 'train_command', fake_command(seconds, failing))


def marks(place, word='begin'):
    path = place.output / 'marks'
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1].rsplit('-', 1)[0] for line in lines if line.startswith(word)]


def most_at_once(place):
    now = most = 0
    for line in (place.output / 'marks').read_text().splitlines():
        now += 1 if line.startswith('begin') else -1
        most = max(most, now)
    return most


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_all_run_two_at_a_time_and_are_recorded_once(place, monkeypatch):
    use(monkeypatch, 0.3)
    assert Runner(make_jobs(['smoke']), place).run() == 0
    assert sorted(marks(place)) == ['smoke-s0', 'smoke-s1', 'smoke_alfa-s0', 'smoke_alfa-s1']
    assert most_at_once(place) == 2
    assert len(records.load_all(place.runs)) == 4
    assert Runner(make_jobs(['smoke']), place).run() == 0
    assert len(marks(place)) == 4


def test_a_record_names_nothing_of_the_machine(place, monkeypatch):
    use(monkeypatch)
    Runner(make_jobs(['smoke'], [0]), place).run()
    text = (place.runs / 'smoke-s0.json').read_text()
    assert str(place.output) not in text
    record = json.loads(text)
    assert record['options'] == RECIPES['smoke'].options
    assert record['dataset'] == 'digits'
    assert record['history'] == dict(train_loss=[2.3457], val_top1=[10.0], eta=[[0.5, 0.5]])


def test_a_failure_is_told_and_stops_nothing_else(place, monkeypatch, capsys):
    use(monkeypatch, failing='smoke-s0')
    assert Runner(make_jobs(['smoke']), place).run() == 1
    shown = capsys.readouterr().err
    assert 'smoke-s0 ended with exit 3' in shown
    assert 'no luck' in shown
    assert len(records.load_all(place.runs)) == 3
    use(monkeypatch)
    assert Runner(make_jobs(['smoke']), place).run() == 0
    assert marks(place).count('smoke-s0') == 2
    assert marks(place).count('smoke-s1') == 1


def test_a_run_of_other_options_does_not_count(place, monkeypatch):
    use(monkeypatch)
    job = make_jobs(['smoke'], [0])[0]
    Runner([job], place).run()
    changed = Job(dataclasses.replace(job.recipe, options={**job.recipe.options, 'lr': 0.2}), 0)
    assert changed.name == job.name
    assert changed.folder != job.folder
    Runner([changed], place).run()
    assert len(marks(place)) == 2
    assert records.load(place.runs / 'smoke-s0.json')['options']['lr'] == 0.2


def test_a_finished_run_without_its_record_is_recorded_without_running(place, monkeypatch):
    use(monkeypatch)
    jobs = make_jobs(['smoke'], [0])
    Runner(jobs, place).run()
    (place.runs / 'smoke-s0.json').write_text('{"torn')
    Runner(jobs, place).run()
    assert len(marks(place)) == 2
    assert records.load(place.runs / 'smoke-s0.json')['status'] == 'finished'


def test_a_killed_runner_finds_its_runs_again_and_starts_none_twice(place, monkeypatch):
    runner = subprocess.Popen([sys.executable, HERE / 'drive.py', place.output, '2', '2'])
    wait_for(lambda: len(marks(place)) == 2)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    jobs = make_jobs(['smoke'])
    locked = [job.name for job in jobs if processes.is_locked(place.output / f'{job.folder}.lock')]
    assert locked == ['smoke-s0', 'smoke_alfa-s0']
    assert not records.load_all(place.runs)
    use(monkeypatch)
    assert Runner(list(reversed(jobs)), place).run() == 0
    assert sorted(marks(place)) == ['smoke-s0', 'smoke-s1', 'smoke_alfa-s0', 'smoke_alfa-s1']
    assert most_at_once(place) == 2
    assert len(records.load_all(place.runs)) == 4


def test_a_killed_run_is_a_failure_that_goes_on_next_time(place, monkeypatch):
    use(monkeypatch, 30)
    job = make_jobs(['smoke'], [0])[0]
    slot = processes.Slot(job, place)
    slot.process.kill()
    wait_for(slot.poll)
    assert slot.code == -signal.SIGKILL
    use(monkeypatch)
    assert Runner([job], place).run() == 0
    assert len(records.load_all(place.runs)) == 1


def test_sigterm_lets_runs_save_their_state(place):
    runner = subprocess.Popen([sys.executable, HERE / 'drive.py', place.output, '2', '30'])
    wait_for(lambda: len(marks(place)) == 2)
    runner.terminate()
    assert runner.wait(10) == 130
    assert not any(processes.is_locked(path) for path in place.output.glob('*.lock'))
    assert not records.load_all(place.runs)


def test_time_left_is_that_of_like_runs(place, monkeypatch):
    use(monkeypatch)
    jobs = make_jobs(['smoke'])
    runner = Runner(jobs, place)
    assert runner.seconds_left() is None
    Runner(jobs[:2], place).run()
    runner = Runner(jobs, place)
    assert runner.seconds_left() == pytest.approx(2 * 2.0 / 2)  # two runs of two seconds, side by side


def test_accuracy_under_attack_is_measured_after_training(place, monkeypatch):
    use(monkeypatch)
    script = place.output / 'validate.py'
    place.output.mkdir(exist_ok=True)
    script.write_text('import json; print("a log line"); print(json.dumps(dict(robust_top1=4.5)))')
    monkeypatch.setattr(processes, 'robust_command', lambda *a: [sys.executable, str(script)])
    job = make_jobs(['smoke'], [0])[0]
    robust = Job(dataclasses.replace(job.recipe, robust=True), 0)
    assert Runner([robust], place).run() == 0
    assert records.load(place.runs / 'smoke-s0.json')['robust_top1'] == 4.5
    assert place.is_recorded(robust)


@pytest.mark.parametrize('script', ['exit(2)', 'print("{}")', 'print("no record")', 'pass'])
def test_training_is_recorded_even_where_the_attack_fails(place, monkeypatch, script):
    use(monkeypatch)
    monkeypatch.setattr(processes, 'robust_command', lambda *a: [sys.executable, '-c', script])
    job = make_jobs(['smoke'], [0])[0]
    robust = Job(dataclasses.replace(job.recipe, robust=True), 0)
    assert Runner([robust], place).run() == 1
    assert records.load(place.runs / 'smoke-s0.json')['test_top1'] == 49.0
    assert not place.is_recorded(robust)
    assert Runner([robust], place).run() == 1
    assert len(marks(place)) == 1
