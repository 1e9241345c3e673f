"""Jobs that share a process."""

import json

import pytest

from studies import run, together
from studies.jobs import Job, make_jobs
from studies.recipes import RECIPES
from studies.worker import Workspace


def test_two_in_one_process_are_recorded(tmp_path):
    words = ['smoke', '--seeds', '1', '--together', '2', '--output', str(tmp_path / 'out')]
    assert run.main([*words, '--records', str(tmp_path / 'records')]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / 'records').iterdir()]
    assert {record['name'] for record in records} == {job.name for job in make_jobs(['smoke'], [0])}
    assert [record['jobs'] for record in records] == [2, 2]
    lines = (tmp_path / 'out' / 'together.log').read_text().splitlines()
    for job in make_jobs(['smoke'], [0]):
        assert sum(line.startswith(f'{job.folder}: done in') for line in lines) == 1


def test_a_group_has_one_precision():
    recipe = RECIPES[make_jobs(['smoke'], [0])[0].recipe.name]
    jobs = [Job(recipe, seed, mixed_precision='bf16' if seed % 2 else None) for seed in range(5)]
    assert [[job.seed for job in group] for group in together.groups(jobs, 2)] == [[1, 3], [0, 2], [4]]


def test_jobs_that_are_running_are_left_alone(tmp_path, monkeypatch):
    workspace, jobs = Workspace(tmp_path, tmp_path / 'records'), make_jobs(['smoke'], [0])
    started = []
    monkeypatch.setattr(together, 'train_group', lambda jobs, workspace: started.append(jobs) or 0)
    handle = together.take_lock(workspace.lock(jobs[0]))
    assert handle is not None and together.train_in_groups(jobs, workspace, 4)
    assert started == [jobs[1:]]


def test_a_signal_ends_the_runner(tmp_path, monkeypatch):
    monkeypatch.setattr(together, 'train_group', lambda jobs, workspace: 143)
    assert run.main(['smoke', '--together', '2', '--output', str(tmp_path), '--records', str(tmp_path / 'r')]) == 130


@pytest.mark.parametrize('words', [('--together', '0'), ('--together', '2', '--jobs', '2')])
def test_together_replaces_jobs(words):
    with pytest.raises(SystemExit):
        run.parse_args(['smoke', *words])
