"""Several runs in one process: each is the run that it would be alone."""

import logging
import os
import signal

import pytest
import torch
from helpers.training_runs import TINY

from timm_alfa.errors import ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.together import prepare_together, train_together
from timm_alfa.training.trainer import Trainer

FIRST = ('--seed', '1')
SECOND = ('--seed', '2', '--task', 'noise', '--epochs', '3')


@pytest.fixture
def together(runs):
    """Trains runs together; their words by name."""

    def train(ended=None, **words):
        configs = [
            parse_args([*TINY, '--output', str(runs.output), '--experiment', name, *given])
            for name, given in words.items()
        ]
        return train_together(prepare_together(configs), ended)

    return train


def assert_same_run(runs, name, other):
    weights, others = runs.weights(name), runs.weights(other)
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[key]) for key, value in weights.items())
    assert runs.rows(name) == runs.rows(other)


@pytest.mark.parametrize('options', [(), ('--cuda-graph',), ('--mixup', '0.2')], ids=' '.join)
def test_each_is_the_run_that_it_is_alone(runs, together, options):
    for name, words in (('first', FIRST), ('second', SECOND)):
        assert runs(*words, *options, experiment=f'{name}-alone')['runs_together'] == 1
    records = together(first=(*FIRST, *options), second=(*SECOND, *options))
    for name, record in zip(('first', 'second'), records, strict=True):
        assert record['runs_together'] == 2
        words = [*TINY, '--output', str(runs.output), '--experiment', name]
        assert record['command'][: len(words) + 1] == ['train.py', *words]
        assert_same_run(runs, name, f'{name}-alone')


def test_they_take_turns_and_share_decoded_images(runs, monkeypatch):
    update, order = Trainer.update, []

    def watched(self, window):
        order.append(self.config.run.seed)
        return update(self, window)

    monkeypatch.setattr(Trainer, 'update', watched)
    common = (*TINY, '--output', str(runs.output), '--epochs', '1')
    both = [parse_args([*common, '--experiment', f's{seed}', '--seed', str(seed)]) for seed in (1, 2)]
    subset = [parse_args([*common, '--experiment', 's3', '--train-subset', '64'])]
    made = prepare_together(both + subset)
    validation = [run.data.val.pixels.data_ptr() for run in made]
    assert validation[0] == validation[1] != validation[2]
    train_together(made[:2])
    assert order == [1, 2] * 6


def test_an_error_ends_its_run_alone(runs, together, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger('timm_alfa'), 'propagate', True)
    runs(*SECOND, experiment='second-alone')
    update = Trainer.update

    def failing(self, window):
        if self.config.run.seed == 1 and self.state.updates == 3:
            raise RuntimeError('out of luck')
        return update(self, window)

    monkeypatch.setattr(Trainer, 'update', failing)
    error, record = together(first=FIRST, second=SECOND)
    assert isinstance(error, RuntimeError) and 'out of luck' in caplog.text
    assert record['status'] == 'finished'
    assert_same_run(runs, 'second', 'second-alone')

    # its folder is not locked any more
    monkeypatch.undo()
    assert runs(*FIRST, '--resume', 'auto', experiment='first')['status'] == 'finished'


def test_an_error_of_what_is_called_at_the_end_of_a_run_ends_no_other(together):
    def failing(run, result):
        raise OSError('no space left')

    results = together(failing, first=(*FIRST, '--epochs', '1'), second=SECOND)
    assert [result['status'] for result in results] == ['finished', 'finished']


def test_a_signal_saves_all(runs, together, monkeypatch):
    update = Trainer.update

    def interrupted(self, window):
        if self.config.run.seed == 2 and self.state.updates == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, window)

    monkeypatch.setattr(Trainer, 'update', interrupted)
    records = together(first=FIRST, second=SECOND)
    assert [(record['status'], record['updates']) for record in records] == [('stopped', 6), ('stopped', 5)]
    monkeypatch.undo()
    together(first=(*FIRST, '--resume', 'auto'), second=(*SECOND, '--resume', 'auto'))
    for name, words in (('first', FIRST), ('second', SECOND)):
        runs(*words, experiment=f'{name}-alone')
        assert_same_run(runs, name, f'{name}-alone')


def test_lines_carry_the_name_of_the_run(together, capfd):
    from timm_alfa.utils.console import setup_logging

    setup_logging()
    together(first=FIRST, second=(*FIRST, '--task', 'standard'))
    lines = capfd.readouterr().err.splitlines()
    assert sum(line.startswith('first: done in') for line in lines) == 1
    assert sum(line.startswith('second: task: standard') for line in lines) == 1
    assert all(line.startswith(('first: ', 'second: ')) for line in lines)


def test_names_must_differ(runs):
    config = parse_args([*TINY, '--output', str(runs.output), '--experiment', 'one'])
    with pytest.raises(ConfigError, match='names that differ'):
        prepare_together([config, config])
