"""Robust accuracy over processes, and what validate.py makes of its flags."""

import pytest
import timm
import torch
from accelerate import Accelerator
from helpers.training_processes import Processes
from safetensors.torch import save_file

from timm_alfa.data import DataConfig, create_eval_loader
from timm_alfa.errors import ConfigError
from timm_alfa.perturb.pgd import robust_correct
from timm_alfa.tasks import TASKS
from timm_alfa.training.evaluate import evaluate_robust
from timm_alfa.training.options.config import InputConfig
from timm_alfa.training.options.validate_args import parse_args
from timm_alfa.training.setup.build import input_config
from timm_alfa.training.setup.prepare import task_arguments

QUICK = dict(steps=2, step_size=1 / 255, eps=1.5 / 255, random_start=False)
FLAGS = ['--attack-steps', '2', '--attack-step-size', '1/255', '--attack-eps', '1.5/255', '--no-attack-random-start']


@pytest.fixture(scope='module')
def scored():
    """A model that tells some digits, its input, and all images of the test split."""
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=10)
    inputs = input_config(InputConfig(img_size=32), model)
    loader = create_eval_loader(
        DataConfig(dataset='digits'),
        model_config=inputs,
        split='test',
        num_classes=10,
        rank=0,
        world_size=1,
        device=torch.device('cpu'),
        channels_last=False,
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5  # few steps: statistics have to follow
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for input, target in (batch for _ in range(6) for batch in loader):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(input), target).backward()
        optimizer.step()
    return model.eval(), inputs, loader


def test_images_are_counted_batch_by_batch(scored):
    model, inputs, loader = scored
    attack = dict(mean=inputs['mean'], std=inputs['std'], **QUICK)
    expected = sum(int(robust_correct(model, *batch, **attack).sum()) for batch in loader)
    clean = sum(int((model(input).argmax(1) == target).sum()) for input, target in loader)
    model.train()
    found = evaluate_robust(model, loader, Accelerator(cpu=True), **attack)
    assert model.training
    model.eval()
    shares = {'robust_top1': pytest.approx(100 * expected / 360), 'robust_correct': expected}
    assert found == {**shares, 'robust_count': 360}
    assert 0 < expected < clean


def test_two_processes_count_what_one_counts(scored, tmp_path):
    model, inputs, loader = scored
    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    expected = evaluate_robust(model, loader, Accelerator(cpu=True), mean=inputs['mean'], std=inputs['std'], **QUICK)
    words = ('--model', 'test_resnet', '--img-size', '32', '--checkpoint', str(tmp_path / 'model.safetensors'))
    data = ('--dataset', 'digits', '--split', 'test', '-b', '50')
    record = Processes(tmp_path, [*words, *data, '--robust', *FLAGS], count=2, script='validate').record()
    assert record['num_processes'] == 2
    assert (record['count'], record['robust_correct']) == (360, expected['robust_correct'])
    assert record['robust_top1'] == pytest.approx(expected['robust_top1'])
    assert record['attack'] == {**QUICK, 'restarts': 1}


def test_attack_options_without_the_attack_are_refused():
    with pytest.raises(ConfigError, match='--attack-steps has no effect without --robust'):
        parse_args(['--checkpoint', 'x', '--attack-steps', '3'])
    config = parse_args(['--checkpoint', 'x', '--robust', *FLAGS])
    assert config.attack.options() == {**QUICK, 'restarts': 1}


def test_a_task_knows_how_the_loader_normalizes():
    inputs = dict(mean=(0.1,), std=(0.2,), input_size=(1, 8, 8))
    pixel, feature = TASKS['advprop'].config, TASKS['alfa'].config
    passed = task_arguments(pixel(), inputs)
    assert (passed['mean'], passed['std']) == ((0.1,), (0.2,))
    assert task_arguments(pixel(mean=(0.5,), std=(0.4,)), inputs)['std'] == (0.4,)
    assert 'mean' not in task_arguments(feature(), inputs)
