"""The probe: against full passes with hooks, and what it leaves behind."""

import copy
import json
import random

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.rewriting import hooked, plain_step
from helpers.settings import tiny
from torch import nn

import timm_alfa
from timm_alfa.errors import BlockError, ConfigError
from timm_alfa.probing.crossing import first_crossing
from timm_alfa.replay.flops import floor, forward_after


class Plain(nn.Module):
    """Not timm's: a network with everything that a probe could leave a trace in."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(4, 5)
        self.register_buffer('calls', torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        random.random()
        np.random.rand()
        return self.head(self.body(x).mean((2, 3)))


def test_the_rise_is_that_of_full_passes():
    model, input, target = tiny('test_resnet', batch=3)
    plain, features = copy.deepcopy(model), {}
    result = timm_alfa.probe(model, input, target, blocks='2,4', sizes=(0.01, 0.1), steps=2)
    names = timm_alfa.resolve_blocks(model, '2,4')
    assert [row.block for row in result.blocks] == list(names)

    with hooked(plain, {name: lambda m, a, out, name=name: features.update({name: out.detach()}) for name in names}):
        clean = F.cross_entropy(plain(input), target).item()
    assert result.loss == pytest.approx(clean, rel=1e-9)
    for row in result.blocks:
        feature = features[row.block]
        rms = feature.square().mean().sqrt().item()
        assert row.rms == pytest.approx((rms,), rel=1e-9) and row.shape == list(feature.shape[1:])
        expected = plain_step(plain, [row.block], input, target, steps=2, step_size=0.1 * rms)
        assert row.rises[1] == pytest.approx(expected.loss_adv.item() / clean - 1, rel=1e-7)
        forward, _ = forward_after(model, names, input)
        assert row.cost == pytest.approx(floor(model, [[row.block]], input, steps=2) / (3 * forward))


@pytest.mark.parametrize('mode', [True, False])
def test_it_leaves_no_trace(mode):
    model = Plain().train(mode)
    model.body[1].eval()
    criterion = nn.CrossEntropyLoss()
    input, target = torch.randn(4, 3, 8, 8), torch.arange(4)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before, gradient = copy.deepcopy(model), model.head.weight.grad.clone()
    torch.manual_seed(1)
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()

    with torch.no_grad():
        result = timm_alfa.probe(model, input, target, blocks='body', criterion=criterion, steps=2)
        assert not torch.is_grad_enabled() and torch.is_autocast_cache_enabled()
    assert result.blocks[0].rises[-1] > 0

    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1] and np.array_equal(np.random.get_state()[1], generators[2])
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(model.head.weight.grad, gradient)
    assert all(p.grad is None for name, p in model.named_parameters() if name != 'head.weight')
    assert all(vars(a).keys() == vars(b).keys() for a, b in zip(model.modules(), before.modules(), strict=True))


def test_running_statistics_stay():
    model, input, target = tiny('test_resnet', batch=3)
    before = copy.deepcopy(model.state_dict())
    timm_alfa.probe(model, input, target, blocks='last', sizes=(0.1,), steps=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('pool', ['token', 'avg'])
def test_the_tokens_that_the_gradient_reaches(pool):
    model = timm.create_model('test_vit', img_size=32, num_classes=5, global_pool=pool)
    first, last = timm_alfa.probe(
        model, torch.randn(2, 3, 32, 32), torch.arange(2), blocks='1,6', sizes=(0.1,), steps=1
    ).blocks
    assert first.tokens.reached == 5 and 0 < first.tokens.prefix_share < 1
    assert (last.tokens.reached, last.tokens.prefix_share) == ((1, 1.0) if pool == 'token' else (4, 0.0))


def test_any_model_and_loss():
    model = Plain()
    batch = (torch.randn(4, 3, 8, 8), torch.randn(4, 5), torch.tensor(2.0))
    result = timm_alfa.probe(
        model,
        *batch,
        blocks='body.1',
        call=lambda model, x, y, weight: model(x),
        loss=lambda output, x, y, weight: weight * (output - y).square().mean(),
        norm='l2',
        steps=1,
    )
    (row,) = result.blocks
    assert row.rises == tuple(sorted(row.rises)) and row.tokens is None
    rms, length = row.rms[0], row.rms[0] * (4 * 6 * 6) ** 0.5
    assert rms < length and row.step_size_absolute[0] == pytest.approx(row.step_size * length)


@pytest.mark.parametrize(
    ('rises', 'expected'),
    [
        ((0.01, 0.1, 0.2), 0.01 ** (1 - np.log10(5)) * 0.1 ** np.log10(5)),
        ((-0.05, 0.15, 0.2), 0.01 * 10**0.5),
        ((0.05, 0.1, 0.2), 0.01),
        ((0.06, 0.1, 0.2), 0.0),
        ((0.01, 0.02, 0.03), float('inf')),
        ((0.01, float('nan'), 0.05), 0.01),
    ],
)
def test_where_the_rise_reaches_the_target(rises, expected):
    sizes = (0.01, 0.1, 1.0)
    assert first_crossing(sizes, rises, 0.05) == pytest.approx(expected)


def test_what_is_outside_of_the_sizes_is_said_so():
    model, input, target = tiny('test_resnet', batch=3)
    result = timm_alfa.probe(model, input, target, blocks='last', sizes=(1e-7, 1e-6), steps=1)
    assert result.blocks[0].outside == 'above' and '> 1e-06' in str(result)
    result = timm_alfa.probe(model, input, target, blocks='last', sizes=(5.0,), steps=5)
    assert result.blocks[0].outside == 'below' and result.blocks[0].step_size is None and '< 5' in str(result)
    assert json.loads(json.dumps(result.to_dict()))['blocks'][0]['step_size_absolute'] is None
    assert result.to_png('title') == result.to_png('title') != result.to_png()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(sizes=(0.1, 0.01)), 'sizes is .0.1, 0.01.: pass increasing numbers above 0'),
        (dict(sizes=()), 'sizes is'),
        (dict(sizes=0.1), 'sizes is 0.1'),
        (dict(gap=0), 'gap is 0: pass a number above 0'),
        (dict(steps=0), 'steps is 0: without a step'),
        (dict(norm='l1'), 'norm'),
        (dict(loss=3), 'loss is 3: pass a function'),
        (dict(target=None), 'the batch of a classifier is images and targets, and 1 arguments'),
        (dict(criterion=lambda output, target: output.sum() * 0), 'the loss of the batch is 0, and its rise'),
        (dict(criterion=lambda output, target: output.sum() * np.nan), 'the loss of the batch is nan'),
        (dict(blocks='nowhere'), "no module is named 'nowhere'"),
    ],
)
def test_bad_input_is_refused_in_a_line(options, message):
    batch = (torch.randn(2, 3, 8, 8), torch.arange(2))
    if 'target' in options:
        batch = batch[: options.pop('target') or 1]
    with pytest.raises((ConfigError, BlockError), match=message):
        timm_alfa.probe(Plain(), *batch, **{'blocks': 'body', **options})
