"""The trainer knows no method by name: whatever is registered gets its trial, columns, plot and record entries."""

import ast
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers.settings import tiny
from helpers.task_table import TABLE
from PIL import Image
from torch import nn

import timm_alfa.training
from timm_alfa import create_task
from timm_alfa.options import option
from timm_alfa.tasks import TASKS, TaskRow, register_task
from timm_alfa.tasks.base import MethodTask
from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.training.trainer import Trainer
from timm_alfa.training.update.agreement import Requests


@dataclass(frozen=True)
class TemperConfig:
    """Options of a method that exists in this test alone."""

    rarely: bool = option(True, 'act in no step but those of a trial')

    def no_effect(self):
        yield from ()


class TemperTask(MethodTask):
    """Divides logits by a learned temperature, in the steps that an option names."""

    def __init__(self, model, criterion=None, *, config, **kwargs):
        super().__init__(model, criterion, config=config, extras={'temperature': nn.Parameter(torch.ones(2))}, **kwargs)
        self.acts, self.tried = not config.rarely, 0

    def perturbed(self, input, target):
        output = self.objective.call(self.trainable_module, input, target)
        self.tried += self.acts
        loss = self.criterion(output / self.extras.temperature.mean(), target)
        return {'loss': loss, 'output': output, 'loss_clean': loss.detach()}

    @contextmanager
    def trial(self):
        acts, self.acts = self.acts, True
        try:
            with super().trial():
                yield
        finally:
            self.acts = acts

    def epoch_metrics(self):
        return {'temperature_low': self.extras.temperature.min().item(), 'temperature_high': 7.0}

    def epoch_plots(self):
        columns = ('temperature_low', 'temperature_high')
        return [EpochPlot('temperature.png', 'temperature', columns, ('low', 'high'), 'end')]

    def result_entries(self):
        return {'temperature': self.extras.temperature.tolist()}


@pytest.fixture
def registered():
    register_task(TaskRow('temper', TemperTask, TemperConfig, 'temper', 'a test', 'Temper', 'A test.'))
    yield
    del TASKS['temper']


def test_a_new_method_needs_no_change_of_the_trainer(registered, runs, plots):
    run = runs.prepare('--task', 'temper', experiment='tried')
    assert run.task.tried == 2 and not run.task.acts and run.task.updates == 0
    assert id(run.task.extras.temperature) not in {id(p) for p in run.task.clip_parameters()}
    result = runs('--task', 'temper')
    rows = runs.rows('run')
    assert len(rows) == 2 and all(row['temperature_high'] == '7' for row in rows)
    assert float(rows[-1]['temperature_low']) == pytest.approx(min(result['temperature'])) != 1
    with Image.open(runs.output / 'run' / 'temperature.png') as image:
        assert image.width > 800 and len(image.convert('L').getcolors(1 << 16)) > 10


def test_other_methods_have_no_entries_of_it(runs, plots):
    result = runs('--task', 'standard', '--epochs', '1')
    assert not {'temperature', 'eta'} & result.keys()
    assert sorted(file.name for file in (runs.output / 'run').glob('*.png')) == ['curves.png']


def test_a_method_knows_how_many_updates_there_will_be(runs):
    run = runs.prepare('--task', 'isda', '--epochs', '3', '--grad-accum-steps', '2')
    assert run.task.total_updates == 3 * run.updates_per_epoch
    assert run.task.strength() == 0
    assert not any(buffer.any() for buffer in run.task.get_extra('statistics').buffers()), 'the trial left a trace'


def test_what_a_method_estimates_is_resumed_bit_for_bit(runs, monkeypatch):
    options = ('--task', 'isda', '--isda-strength', '50', '--epochs', '1')
    runs(*options, experiment='whole')
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, 'requests', lambda self: Requests(stop=self.state.updates == 2, save=False))
        assert runs(*options, experiment='cut')['updates'] == 3
    assert runs(*options, '--resume', 'auto', experiment='cut')['status'] == 'finished'
    assert runs.rows('cut') == runs.rows('whole')
    weights = runs.weights('whole')
    assert all(torch.equal(value, weights[key]) for key, value in runs.weights('cut').items())
    assert float(runs.rows('whole')[-1]['train_loss_adv']) > float(runs.rows('whole')[-1]['train_loss_clean'])


def own_names():
    """Names of methods, and of what is theirs: attributes of their tasks that not every task has."""
    # words with another meaning outside of the tasks: re.search, the attack of validate.py, groups of messages
    common = {'model', 'delta_norm', 'search', 'attack', 'groups'}
    standard = create_task('standard', tiny()[0], None)
    names = set(TABLE)
    for name, config in TABLE.items():
        task = create_task(name, tiny()[0], None, **config)
        names |= {*vars(task), *dir(type(task))} - set(dir(standard))
        if task.extras is not None:
            names |= {key.split('.')[0] for key, _ in task.extras.named_parameters()}
    return names - common


def words(file):
    """What a module names: attributes, variables, and whole texts such as those given to getattr."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_trainer_names_no_method():
    names = own_names()
    assert {'eta', 'prob', 'pixels', '_checks', 'moex', 'alfa'} <= names
    folder = Path(timm_alfa.training.__file__).parent
    files = [file for file in folder.rglob('*.py') if file.parent.name != 'options']
    assert len(files) > 40
    found = {(file.name, word) for file in files for word in words(file) if word in names}
    assert not found
