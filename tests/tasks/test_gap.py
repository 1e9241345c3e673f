"""ALFA's step sizes under control: the rise of the loss that they hold, their bounds, and their state."""

import copy
import math
from collections import OrderedDict
from functools import partial

import pytest
import torch
from helpers.settings import CLASSES, tiny
from torch import nn

from timm_alfa import create_task
from timm_alfa.errors import BlockError, ConfigError
from timm_alfa.perturb import gap

NETWORKS = (
    ('resnet20s', 16, dict(blocks='2,3')),
    ('test_vit', 32, dict(blocks='last', unit='rms')),
    ('test_convnext', 32, dict(blocks='2')),
)


def small(**config):
    """A perceptron of three hidden layers, all of them perturbed, and a batch for it."""
    torch.manual_seed(0)
    layers = {}
    for at, name in enumerate('abc'):
        layers[name] = nn.Linear(8 if at else 6, 8)
        layers[f'relu_{name}'] = nn.ReLU()
    model = nn.Sequential(OrderedDict(**layers, head=nn.Linear(8, CLASSES)))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    task = create_task('alfa', model, **{'blocks': 'a,b,c', 'steps': 2, 'gap': 0.05, **config})
    return task, (torch.randn(4, 6), torch.arange(4))


def rise(result):
    return float((result['loss_adv'] - result['loss_clean']) / result['loss_clean'])


def updated(task, batch, updates):
    """The rise in each of some updates of the step sizes alone."""
    found = []
    for _ in range(updates):
        found.append(rise(task(*batch)))
        task.post_step()
    return found


def sizes(task):
    return task.control.sizes.tolist()


@pytest.mark.parametrize(('arch', 'size', 'config'), NETWORKS, ids=str)
def test_the_rise_comes_to_the_target_and_stays(arch, size, config):
    model, *batch = tiny(arch, size, batch=2, dtype=torch.float32)
    task = create_task('alfa', model, gap=0.05, steps=2, **{'step_size': 0.03, **config})
    found = updated(task, batch, 40)
    assert found[-5:] == pytest.approx([0.05] * 5, rel=0.15)


@pytest.mark.parametrize('start', [1e-4, 1.0])
def test_it_comes_from_far_below_and_far_above(start):
    task, batch = small(unit='rms', step_size=start)
    assert updated(task, batch, 90)[-1] == pytest.approx(0.05, rel=0.1)


def note(noted, observe, record, loss_clean, losses):
    """Keeps the losses of a call of `observe`."""
    noted['losses'] = list(losses)
    observe(record, loss_clean, losses)


def test_one_update_is_the_formula():
    """Each block has its own rise, over all batches of the update."""
    task, (input, target) = small(step_size=(0.001, 0.002, 0.04), gap=0.1)
    expected, clean, added = [], 0.0, torch.zeros(3, dtype=torch.float64)
    for batch in ((input, target), (input * 0.5, target)):
        noted = {}
        task.observe = partial(note, noted, task.observe)
        loss = float(task(*batch)['loss_clean'])
        del task.observe
        clean += loss / 2
        added += (torch.stack(noted['losses']).double() - loss) / 2
    task.post_step()
    for size, more in zip((0.001, 0.002, 0.04), added.tolist(), strict=True):
        error = min(1.0, max(-1.0, 1 - more / (0.1 * clean)))
        expected.append(size * (1 + 0.1 * error))
    assert sizes(task) == pytest.approx(expected, rel=1e-4)


def test_blocks_that_are_perturbed_together_change_together():
    task, batch = small(mode='joint', step_size=(0.001, 0.002, 0.003))
    updated(task, batch, 3)
    ratios = [now / before for now, before in zip(sizes(task), (0.001, 0.002, 0.003), strict=True)]
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-5)
    assert ratios[0] != 1


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ('clean', 'adv', 'before', 'low', 'high'),
    [
        (1e-30, 1e-3, 2.0, 1.0, 1.1),  # its own loss is almost zero: 5% of the usual one is not reached
        (1e-30, 50.0, 2.0, 0.9, 0.9),
        (0.0, 1.0, 0.0, 0.9, 0.9),  # no loss at all: any rise is too much
        (0.0, 0.0, 0.0, 1.0, 1.0),  # nothing is known
        (1.0, 0.9, 0.0, 1.1, 1.1),
        (-1.0, -0.95, 0.0, 0.999999, 1.000001),  # 5% of the size of a loss below zero
        (math.nan, 1.0, 1.0, 1.0, 1.0),
        (1.0, math.inf, 1.0, 1.0, 1.0),
    ],
)
def test_odd_losses_change_a_step_by_a_tenth_at_most(clean, adv, before, low, high):
    row = gap.measure(torch.tensor(clean), [torch.tensor(adv)], [torch.tensor(10.0)])
    now = gap.measured(row)
    mean = gap.next_clean(torch.tensor(before), now)
    size = float(gap.next_sizes(ONE, mean, now, 0.05))
    assert low - 1e-6 <= size <= high + 1e-6
    assert math.isfinite(float(mean))


@pytest.mark.parametrize('unit', ['absolute', 'rms'])
def test_a_loss_that_nothing_raises_does_not_let_a_step_grow_without_bound(unit):
    model = nn.Sequential(OrderedDict(hidden=nn.Linear(6, 8), head=nn.Linear(8, CLASSES)))
    nn.init.zeros_(model.head.weight)
    input = torch.randn(4, 6)
    task = create_task('alfa', model, blocks='hidden', gap=0.05, unit=unit, step_size=0.5)
    updated(task, (input, torch.arange(4)), 40)
    with torch.no_grad():
        length = 1.0 if unit == 'rms' else float(model.hidden(input).square().mean().sqrt())
    assert sizes(task) == pytest.approx([length], rel=1e-5)


def test_updates_that_do_not_perturb_and_those_left_out_change_nothing():
    task, (input, target) = small(blocks='c', every=2, start=1)
    seen = []
    for _ in range(5):
        task(input, target)
        task.post_step()
        seen.append(sizes(task)[0])
    assert seen[0] == pytest.approx(1 / 255)
    assert seen[1] != seen[0]
    assert (seen[2], seen[4]) == (seen[1], seen[3])
    assert seen[3] != seen[2]

    task(input * float('nan'), target)  # perturbs
    task.forget_step()
    other = copy.deepcopy(task)
    before = sizes(task)
    task(input, target)
    task.post_step()
    assert sizes(task) != before
    assert sizes(other) == before


def test_a_batch_that_is_not_finite_changes_nothing_even_if_the_step_is_made():
    task, (input, target) = small()
    updated(task, (input, target), 2)
    before = sizes(task)
    task(input * float('nan'), target)
    task.post_step()
    assert sizes(task) == before
    updated(task, (input, target), 1)
    assert sizes(task) != before


def test_a_trial_leaves_no_trace():
    task, batch = small()
    updated(task, batch, 1)
    before = {name: value.clone() for name, value in task.state_dict().items() if 'gap' in name or 'step' in name}
    with task.trial():
        task(*batch)
    assert len(before) == 3
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in before.items())


def test_step_sizes_are_state_and_resumed_bit_for_bit():
    task, batch = small()
    updated(task, batch, 3)
    state = copy.deepcopy(task.get_task_state())
    weights = copy.deepcopy(task.model.state_dict())
    other, _ = small()
    other.model.load_state_dict(weights)
    other.load_task_state(state)
    assert sizes(other) == sizes(task) != [pytest.approx(1 / 255)] * 3
    assert updated(other, batch, 2) == updated(task, batch, 2)
    assert sizes(other) == sizes(task)
    assert other.epoch_metrics() == dict(zip(('step_size_0', 'step_size_1', 'step_size_2'), sizes(task), strict=True))
    assert not any('step_size' in name for name in task.model.state_dict())
    assert task.extra_param_groups() == []


@pytest.mark.parametrize(
    ('config', 'says'),
    [
        (dict(gap=0), 'gap is 0'),
        (dict(gap=0.05, steps=0), 'at least one step'),
        (dict(gap=0.05, step_size=0), 'step_size is 0'),
        (dict(gap=0.05, step_size=[0.1, 0]), 'step_size is 0'),
        (dict(step_size='a,b'), 'one for each block'),
        (dict(step_size=[]), 'one for each block'),
        (dict(step_size=[0.1, -1]), 'at least 0'),
        (dict(mode='joint', weight=[1, 2]), 'one loss'),
    ],
    ids=str,
)
def test_bad_options_are_refused(config, says):
    with pytest.raises(ConfigError, match=says):
        create_task('alfa', tiny()[0], blocks='1,3', **config)


@pytest.mark.parametrize('config', [dict(step_size=(0.1, 0.2)), dict(weight='0.1,0.2'), dict(step_size=[0.1], gap=1)])
def test_as_many_numbers_as_blocks(config):
    with pytest.raises(BlockError, match='3 blocks: layer1, layer2, layer3'):
        create_task('alfa', tiny()[0], blocks='all', **config)


def test_l_alfa_has_no_gap():
    with pytest.raises(ConfigError, match='gap'):
        create_task('l_alfa', tiny()[0], gap=0.05)
