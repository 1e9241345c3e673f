"""Tasks by name: rows, errors, warnings."""

import dataclasses

import pytest
import torch
from helpers.settings import tiny
from timm.task import TrainingTask

from timm_alfa import create_task, list_tasks
from timm_alfa.errors import AlfaWarning, BlockError, ConfigError
from timm_alfa.tasks import TASKS


@pytest.mark.parametrize('name', list_tasks())
def test_rows(name):
    row = TASKS[name]
    assert row.name == name
    assert issubclass(row.task_class, TrainingTask)
    assert row.summary and row.title
    assert row.text.endswith('.')
    for field in dataclasses.fields(row.config):
        assert field.metadata['help'], field.name


def test_names_are_sorted():
    assert list_tasks() == sorted(TASKS)
    assert {'standard', 'alfa', 'l_alfa'} <= set(list_tasks())


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown task 'lalfa'.*Did you mean 'l_alfa'.*standard"):
        create_task('lalfa', tiny()[0])


def test_all_errors_are_in_one_message():
    with pytest.raises(ConfigError) as caught:
        create_task(
            'alfa',
            tiny()[0],
            step=3,
            steps=-1,
            norm='l3',
            step_size='1/0',
            every=0,
            eps=0,
            weight='nan',
            bn='none',
            start=1.5,
            random_start='maybe',
        )
    errors = caught.value.errors
    assert len(errors) == 10
    text = str(caught.value)
    for part in (
        "'step'. Did you mean 'steps'",
        'steps is -1',
        "unknown norm 'l3'",
        "step_size is '1/0'",
        'every is 0',
        'eps is 0',
        'weight is nan',
        "unknown bn 'none'",
        'start is 1.5',
        "random_start is 'maybe'",
    ):
        assert part in text
    assert text.count('\n') == 9


def test_a_wrong_block_is_refused_before_anything_is_touched():
    model = tiny()[0]
    before = {name: dict(m.__dict__) for name, m in model.named_modules()}
    with pytest.raises(BlockError, match=r'layer9.*layer1'):
        create_task('alfa', model, blocks='layer9')
    assert all(before[name] == m.__dict__ for name, m in model.named_modules())


def test_fractions_and_words_are_read():
    task = create_task('alfa', tiny()[0], step_size='0.5/255', eps='None', steps='2', random_start='yes')
    assert task.config.step_size == 0.5 / 255
    assert (task.config.eps, task.config.steps, task.config.random_start) == (None, 2, True)


@pytest.mark.parametrize(
    ('config', 'word'),
    [
        (dict(steps=0), 'steps=0'),
        (dict(step_size=0), 'step_size=0'),
        (dict(weight=0), 'weight=0'),
        (dict(eps=1.0, steps=2, step_size=0.5), 'eps'),
        (dict(bn='aux'), 'aux'),
    ],
)
def test_options_without_effect_warn(config, word):
    model = tiny('test_vit', 32)[0] if 'bn' in config else tiny()[0]
    with pytest.warns(AlfaWarning, match=word) as caught:
        create_task('alfa', model, **config)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    'config',
    [
        dict(),
        dict(eps=0.01, steps=3, step_size=0.01),
        dict(steps=0, random_start=True),
        dict(eps=8 / 255, steps=1, step_size=2 / 255, random_start=True),
    ],
    ids=str,
)
@pytest.mark.filterwarnings('error::timm_alfa.errors.AlfaWarning')
def test_options_with_effect_do_not(config):
    create_task('alfa', tiny()[0], **config)


def test_the_device_is_the_models():
    assert create_task('alfa', tiny()[0]).device == torch.device('cpu')
    with torch.device('meta'):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    task = create_task('l_alfa', model, blocks='last')
    assert task.device.type == task.eta.device.type == 'meta'


def test_criterion_arguments():
    task = create_task('standard', tiny()[0], criterion_kwargs=dict(smoothing=0.1))
    assert 'Smoothing' in type(task.criterion).__name__ or getattr(task.criterion, 'label_smoothing', 0) == 0.1
    with pytest.raises(ValueError, match='not both'):
        create_task('standard', tiny()[0], torch.nn.CrossEntropyLoss(), criterion_kwargs=dict(smoothing=0.1))
