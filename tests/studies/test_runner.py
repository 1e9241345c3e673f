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

from studies import records, worker
from studies.jobs import Job, make_jobs
from studies.recipes import RECIPES
from studies.runner import Runner

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from drive import fake_command


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setattr('studies.runner.POLL', 0.02)
    return worker.Workspace(tmp_path, tmp_path / 'runs', slots=2)


def use(monkeypatch, seconds=0.0, failing=''):
    monkeypatch.setattr(worker, 'train_command', fake_command(seconds, failing))


def marks(workspace, word='begin'):
    path = workspace.output / 'marks'
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1].rsplit('-', 1)[0] for line in lines if line.startswith(word)]


def most_at_once(workspace):
    now = most = 0
    for line in (workspace.output / 'marks').read_text().splitlines():
        now += 1 if line.startswith('begin') else -1
        most = max(most, now)
    return most


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_jobs_run_two_at_a_time_and_are_recorded_once(workspace, monkeypatch):
    use(monkeypatch, 0.3)
    assert Runner(make_jobs(['smoke']), workspace).run() == 0
    assert sorted(marks(workspace)) == ['smoke-s0', 'smoke-s1', 'smoke_alfa-s0', 'smoke_alfa-s1']
    assert most_at_once(workspace) == 2
    assert len(records.load_all(workspace.runs)) == 4
    assert Runner(make_jobs(['smoke']), workspace).run() == 0
    assert len(marks(workspace)) == 4


def test_record_names_nothing_of_the_machine(workspace, monkeypatch):
    use(monkeypatch)
    Runner(make_jobs(['smoke'], [0]), workspace).run()
    text = (workspace.runs / 'smoke-s0.json').read_text()
    assert str(workspace.output) not in text
    record = json.loads(text)
    assert record['options'] == RECIPES['smoke'].options
    assert record['dataset'] == 'digits'
    assert record['history'] == dict(train_loss=[2.3457], val_top1=[10.0], eta=[[0.5, 0.5]])


def test_failure_is_reported_and_stops_no_other_job(workspace, monkeypatch, capsys):
    use(monkeypatch, failing='smoke-s0')
    assert Runner(make_jobs(['smoke']), workspace).run() == 1
    shown = capsys.readouterr().err
    assert 'smoke-s0 ended with exit 3' in shown
    assert 'no luck' in shown
    assert len(records.load_all(workspace.runs)) == 3
    use(monkeypatch)
    assert Runner(make_jobs(['smoke']), workspace).run() == 0
    assert marks(workspace).count('smoke-s0') == 2
    assert marks(workspace).count('smoke-s1') == 1


def test_run_with_other_options_does_not_count(workspace, monkeypatch):
    use(monkeypatch)
    job = make_jobs(['smoke'], [0])[0]
    Runner([job], workspace).run()
    changed = Job(dataclasses.replace(job.recipe, options={**job.recipe.options, 'lr': 0.2}), 0)
    assert changed.name == job.name
    assert changed.folder != job.folder
    Runner([changed], workspace).run()
    assert len(marks(workspace)) == 2
    assert records.load(workspace.runs / 'smoke-s0.json')['options']['lr'] == 0.2


def test_finished_run_without_a_record_is_recorded_without_running_again(workspace, monkeypatch):
    use(monkeypatch)
    jobs = make_jobs(['smoke'], [0])
    Runner(jobs, workspace).run()
    (workspace.runs / 'smoke-s0.json').write_text('{"torn')
    Runner(jobs, workspace).run()
    assert len(marks(workspace)) == 2
    assert records.load(workspace.runs / 'smoke-s0.json')['status'] == 'finished'


def test_runs_of_a_killed_runner_are_found_and_none_starts_twice(workspace, monkeypatch):
    runner = subprocess.Popen([sys.executable, HERE / 'drive.py', workspace.output, '2', '2'])
    wait_for(lambda: len(marks(workspace)) == 2)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    jobs = make_jobs(['smoke'])
    locked = [job.name for job in jobs if worker.is_locked(workspace.lock(job))]
    assert locked == ['smoke-s0', 'smoke_alfa-s0']
    assert not records.load_all(workspace.runs)
    use(monkeypatch)
    assert Runner(list(reversed(jobs)), workspace).run() == 0
    assert sorted(marks(workspace)) == ['smoke-s0', 'smoke-s1', 'smoke_alfa-s0', 'smoke_alfa-s1']
    assert most_at_once(workspace) == 2
    assert len(records.load_all(workspace.runs)) == 4


def test_killed_run_is_a_failure_and_is_resumed_next_time(workspace, monkeypatch):
    use(monkeypatch, 30)
    job = make_jobs(['smoke'], [0])[0]
    running = worker.Worker(job, workspace)
    running.process.kill()
    wait_for(running.poll)
    assert running.code == -signal.SIGKILL
    use(monkeypatch)
    assert Runner([job], workspace).run() == 0
    assert len(records.load_all(workspace.runs)) == 1


def test_sigterm_lets_runs_save_their_state(workspace):
    runner = subprocess.Popen([sys.executable, HERE / 'drive.py', workspace.output, '2', '30'])
    wait_for(lambda: len(marks(workspace)) == 2)
    runner.terminate()
    assert runner.wait(10) == 130
    assert not any(worker.is_locked(path) for path in workspace.output.glob('*.lock'))
    assert not records.load_all(workspace.runs)


def test_time_left_is_estimated_from_runs_of_the_same_group(workspace, monkeypatch):
    use(monkeypatch)
    jobs = make_jobs(['smoke'])
    runner = Runner(jobs, workspace)
    assert runner.seconds_left() is None
    Runner(jobs[:2], workspace).run()
    runner = Runner(jobs, workspace)
    assert runner.seconds_left() == pytest.approx(2 * 2.0 / 2)  # two runs of two seconds, side by side


def test_accuracy_under_attack_is_measured_after_training(workspace, monkeypatch):
    use(monkeypatch)
    script = workspace.output / 'validate.py'
    workspace.output.mkdir(exist_ok=True)
    script.write_text('import json; print("a log line"); print(json.dumps(dict(robust_top1=4.5)))')
    monkeypatch.setattr(worker, 'robust_command', lambda *a: [sys.executable, str(script)])
    job = make_jobs(['smoke'], [0])[0]
    robust = Job(dataclasses.replace(job.recipe, robust=True), 0)
    assert Runner([robust], workspace).run() == 0
    assert records.load(workspace.runs / 'smoke-s0.json')['robust_top1'] == 4.5
    assert workspace.is_recorded(robust)


@pytest.mark.parametrize('script', ['exit(2)', 'print("{}")', 'print("no record")', 'pass'])
def test_training_is_recorded_even_if_the_attack_fails(workspace, monkeypatch, script):
    use(monkeypatch)
    monkeypatch.setattr(worker, 'robust_command', lambda *a: [sys.executable, '-c', script])
    job = make_jobs(['smoke'], [0])[0]
    robust = Job(dataclasses.replace(job.recipe, robust=True), 0)
    assert Runner([robust], workspace).run() == 1
    assert records.load(workspace.runs / 'smoke-s0.json')['test_top1'] == 49.0
    assert not workspace.is_recorded(robust)
    assert Runner([robust], workspace).run() == 1
    assert len(marks(workspace)) == 1
