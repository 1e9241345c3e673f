"""Processes that are killed at any moment, and resumed."""

import random
import signal
import time

import pytest
import torch
from helpers.training_processes import Processes, train_args
from helpers.training_runs import Runs

from timm_alfa.training.checkpoint.store import state_folders

SETTINGS = {
    'alfa': ('--task', 'alfa', '--model-ema', '--mixup', '0.2', '--drop', '0.2'),
    'l_alfa': ('--task', 'l_alfa', '--alfa-blocks', 'all', '--grad-accum-steps', '2'),
}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it never came'
        time.sleep(0.005)


@pytest.mark.parametrize('name', SETTINGS)
def test_killed_at_random_moments(name, tmp_path):
    """SIGKILL while states are written after every update: weights and summary.csv are those of an undisturbed run."""
    options = (*SETTINGS[name], '--checkpoint-every', '1')
    whole = Processes(tmp_path, train_args(tmp_path, 'whole', *options))
    moments, last, kills = random.Random(name), tmp_path / 'cut' / 'last', 0
    while kills < 4:
        run = Processes(tmp_path, train_args(tmp_path, 'cut', *options, '--resume', 'auto'))
        before = state_folders(last)
        wait_for(lambda: state_folders(last) != before or not run.children[0].is_alive())  # noqa: B023  at once
        time.sleep(moments.uniform(0, 0.15))
        if not run.children[0].is_alive():
            break
        run.kill()
        kills += 1
    assert kills >= 3
    resumed = Processes(tmp_path, train_args(tmp_path, 'cut', *options, '--resume', 'auto')).record()
    undisturbed = whole.record()
    runs = Runs(tmp_path)
    assert runs.rows('whole') == runs.rows('cut')
    for file in ('model_last.safetensors', 'model_best.safetensors'):
        assert same(runs.weights('whole', file), runs.weights('cut', file))
    assert undisturbed['best_epoch'] == resumed['best_epoch']
    assert not [each for each in last.iterdir() if each.name.endswith('.tmp')]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_resume(number, tmp_path):
    options = ('--task', 'standard', '--epochs', '4')
    run = Processes(tmp_path, train_args(tmp_path, 'run', *options), hooks=['slow'])
    wait_for(lambda: (tmp_path / 'run' / 'summary.csv').exists())
    run.signal(number)
    record = run.record()
    assert record['status'] == 'stopped' and record['epochs_done'] >= 1
    assert f'Resume with: python train.py --resume {tmp_path / "run"}' in run.stderr
    resumed = Processes(tmp_path, ['--resume', str(tmp_path / 'run')]).record()
    assert resumed['status'] == 'finished' and resumed['epochs_done'] == 4


def test_a_worker_that_dies_is_named(tmp_path):
    run = Processes(
        tmp_path,
        train_args(tmp_path, 'run', '--task', 'standard', '--loader', 'timm', '--workers', '1'),
        hooks=['worker_dies'],
    )
    assert run.wait(60) == [1]
    assert 'DataLoader worker' in run.stderr and 'error: ' in run.stderr and 'Traceback' not in run.stderr


def test_a_second_interrupt_stops_at_once(tmp_path):
    argv = train_args(tmp_path, 'run', '--task', 'standard', '--epochs', '200')
    run = Processes(tmp_path, argv, hooks=['never_done'])
    wait_for(lambda: (tmp_path / 'run' / 'args.yaml').exists())
    time.sleep(0.5)
    run.signal(signal.SIGINT)
    wait_for(lambda: 'Ctrl-C again' in run.stderr)  # a busy machine may be late to hear it
    time.sleep(1.2)
    assert run.children[0].is_alive()
    run.signal(signal.SIGINT)
    assert run.wait(20) == [130]
