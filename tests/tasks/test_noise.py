"""Noise on features against the definition: the clean loss plus the loss with Gaussian noise added."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.rewriting import hooked
from helpers.settings import tiny

from timm_alfa import create_task
from timm_alfa.errors import AlfaWarning, BlockError


def plain(model, input, target, name, noise):
    """Two full passes, the noise added by a hook; running statistics are the clean pass's."""
    clean = F.cross_entropy(model(input), target)
    before = copy.deepcopy(model.state_dict())
    with hooked(model, {name: lambda m, a, feature: feature + noise}):
        noisy = F.cross_entropy(model(input), target)
    (clean + noisy).backward()
    model.load_state_dict(before)
    return clean.detach(), noisy.detach()


def mean_square(model, input, name):
    """Of a feature's entries."""
    found, copied = [], copy.deepcopy(model)
    with torch.no_grad(), hooked(copied, {name: lambda m, a, feature: found.append((feature**2).mean())}):
        copied(input)
    return found[0]


@pytest.mark.parametrize('unit', ['absolute', 'rms'])
def test_it_is_the_definition(unit):
    model, input, target = tiny(size=16)
    task = create_task('noise', copy.deepcopy(model), blocks='2', std=0.3, unit=unit)
    torch.manual_seed(5)
    result = task(input, target)
    result['loss'].backward()
    torch.manual_seed(5)
    std = 0.3 if unit == 'absolute' else 0.3 * mean_square(model, input, 'layer2') ** 0.5
    noise = std * torch.randn(4, 32, 8, 8, dtype=torch.float64)
    clean, noisy = plain(model, input, target, 'layer2', noise)
    torch.testing.assert_close(result['loss'].detach(), clean + noisy)
    torch.testing.assert_close(result['loss_adv'], noisy)
    torch.testing.assert_close(result['delta_norm'].double(), noise.flatten(1).norm(dim=1).mean(), rtol=1e-6, atol=0)
    for (name, p), q in zip(task.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f'{n}: {m}')
    for p, q in zip(task.model.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(p, q)


def test_the_default_is_a_std_of_1_of_255_after_the_last_stage():
    model, input, target = tiny(size=32, batch=16)
    task = create_task('noise', model)
    result = task(input, target)
    assert task.blocks == ('layer3',)
    expected = (64 * 8 * 8) ** 0.5 / 255
    assert float(result['delta_norm']) == pytest.approx(expected, rel=0.05)


def test_each_block_and_step_has_different_noise():
    model, input, target = tiny(size=16)
    task = create_task('noise', model, blocks='layer1.0.bn1,layer1.0.bn2', std=1.0)
    drawn = []
    task.scaled = lambda delta, group: (drawn.append(delta[0][0]), delta)[1]
    for _ in range(2):
        task(input, target)
    for i, a in enumerate(drawn):
        assert all(not torch.equal(a, b) for b in drawn[:i])
    assert len(drawn) == 4


@pytest.mark.parametrize(
    ('config', 'says'), [(dict(std=0), 'nothing is perturbed'), (dict(weight=0), 'ignored')], ids=str
)
def test_options_without_effect_warn(config, says):
    with pytest.warns(AlfaWarning, match=says):
        create_task('noise', tiny()[0], **config)


def test_unknown_blocks_are_refused():
    with pytest.raises(BlockError, match='Stages: 1 = layer1'):
        create_task('noise', tiny()[0], blocks='layer9')
