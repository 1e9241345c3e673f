"""Trackers: refused before anything is written where they cannot start, and one run of theirs per run of ours."""

import sys
from types import SimpleNamespace

import pytest

from timm_alfa.errors import CheckpointError, ConfigError
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.setup import trackers
from timm_alfa.training.setup.trackers import check_trackers, start_trackers, tracker_arguments


def test_wandb_without_a_login_is_one_line(monkeypatch):
    def login():
        raise RuntimeError('No API key configured.\nUse it')

    monkeypatch.setitem(sys.modules, 'wandb', SimpleNamespace(login=login))
    monkeypatch.setattr(trackers, 'is_installed', lambda name: True)
    with pytest.raises(ConfigError, match=r'--log-with wandb: No API key configured\..*WANDB_MODE=offline') as caught:
        check_trackers(('wandb',))
    assert len(caught.value.errors) == 1
    monkeypatch.setenv('RANK', '1')  # the first process reports for all
    check_trackers(('wandb',))


def test_a_resumed_run_is_the_same_run_in_a_tracker(tmp_path):
    state = TrainState()
    first = tracker_arguments(('wandb', 'trackio'), tmp_path / 'run', state)
    assert first['wandb']['name'] == first['trackio']['name'] == 'run'
    assert first['trackio']['resume'] == 'never'
    state.updates = 3
    resumed = TrainState(**state.to_dict())
    again = tracker_arguments(('wandb', 'trackio'), tmp_path / 'run', resumed)
    assert again['wandb'] == first['wandb'] and again['wandb']['resume'] == 'allow'
    assert again['trackio']['resume'] == 'allow'
    assert tracker_arguments(('wandb',), tmp_path, TrainState())['wandb']['id'] != first['wandb']['id']


def test_a_tracker_that_does_not_start_is_one_line_and_no_obstacle(runs, monkeypatch):
    run = runs.prepare('--task', 'standard', '--epochs', '1')
    config = SimpleNamespace(flat=run.config.flat, run=SimpleNamespace(log_with=('trackio',)))

    def init_trackers(*args, **kwargs):
        raise OSError('no route to host\nand more')

    fake = SimpleNamespace(project_configuration=SimpleNamespace(), init_trackers=init_trackers)
    with pytest.raises(CheckpointError, match='--log-with trackio cannot start: OSError: no route to host. Leave it'):
        start_trackers(SimpleNamespace(config=config, accelerator=fake), runs.output, TrainState())
