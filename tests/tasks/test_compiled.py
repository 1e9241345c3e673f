"""Compiled tasks: the same steps, of fewer and larger graphs."""

import copy

import pytest
import torch
import torch.nn as nn
from helpers.settings import assert_same_buffers, assert_same_grads, gradients, tiny

from timm_alfa import create_task
from timm_alfa.errors import AlfaWarning

QUICK = dict(steps=2, step_size=0.05)


@pytest.mark.parametrize(
    ('arch', 'config'),
    [
        ('resnet20s', dict(blocks='2')),
        ('resnet20s', dict(blocks='all', mode='joint', bn='shared')),
        ('resnet20s', dict(blocks='2', bn='aux')),
        ('resnet20s', dict(blocks='layer3.2.bn2')),
        ('test_vit', dict(blocks='all')),
    ],
    ids=str,
)
def test_compiled_steps_are_equal(arch, config):
    torch.compiler.reset()
    model, input, target = tiny(arch, 32 if 'vit' in arch else 16, batch=2)
    other = copy.deepcopy(model)
    task = create_task('alfa', other, **{**QUICK, **config})
    task.compile(backend='eager')
    plain = create_task('alfa', model, **{**QUICK, **config})
    for _ in range(2):
        plain.zero_grad()
        task.zero_grad()
        want, got = plain(input, target), task(input, target)
        want['loss'].backward()
        got['loss'].backward()
        torch.testing.assert_close(got['loss'], want['loss'], rtol=1e-9, atol=1e-9)
        assert_same_grads(gradients(other), gradients(model))
        assert_same_buffers(other, dict(model.named_buffers()))
    assert any(m.__dict__.get('_compiled_call_impl') for m in other.modules())


@pytest.mark.sweep
def test_inductor_agrees():
    torch.compiler.reset()
    model, input, target = tiny(size=16, batch=2, dtype=torch.float32)
    other = copy.deepcopy(model)
    task = create_task('alfa', other, blocks='3', **QUICK)
    task.compile()
    plain = create_task('alfa', model, blocks='3', **QUICK)
    for _ in range(2):  # the prefix is found in the first step and compiled in the second
        results = []
        for each in (plain, task):
            each.zero_grad()
            results.append(each(input, target)['loss'])
            results[-1].backward()
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    assert task._replay._prefix is not None


def test_compiled_replays_skip_the_prefix():
    torch.compiler.reset()
    model, input, target = tiny(size=16, batch=2)
    task = create_task('alfa', model, blocks='2', **QUICK)
    ran = []
    counting = lambda module, inputs: lambda *a: (ran.append(1), module(*a))[1]  # noqa: E731
    task.compile(backend=counting)
    task(input, target)['loss'].backward()
    ran.clear()
    record = task._replay.record(input, target)
    assert len(ran) == 2  # all before the feature in one, layer3
    ran.clear()
    task._replay.run(record, {0: lambda f: f + 1})
    assert len(ran) == 1


@pytest.mark.parametrize('hooked', [None, '', 'layer2'], ids=['plain', 'model', 'layer'])
def test_compiled_prefixes_are_equal_whatever_is_random_or_changes(hooked):
    torch.compiler.reset()
    model, input, target = tiny(size=16, drop_path_rate=0.5, drop_rate=0.5)
    if hooked is not None:  # where the prefix might not see it, or see it twice
        model.get_submodule(hooked).register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    other = copy.deepcopy(model)
    plain, task = create_task('alfa', model, blocks='2', **QUICK), create_task('alfa', other, blocks='2', **QUICK)
    task.compile(backend='eager')
    for batch in (4, 4, 3, 3, 4):
        results = []
        for each in (plain, task):
            torch.manual_seed(batch)
            each.zero_grad()
            results.append(each(input[:batch], target[:batch]))
            results[-1]['loss'].backward()
        torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)
        assert_same_grads(gradients(other), gradients(model))
        assert_same_buffers(other, dict(model.named_buffers()))
    assert (task._replay._prefix is None) == (hooked is not None)


def test_prefixes_of_similar_networks_are_not_mixed_up():
    torch.compiler.reset()
    model, input, target = tiny(size=16)
    for blocks in ('1', '2', '3'):
        other = copy.deepcopy(model)
        task = create_task('alfa', other, blocks=blocks, **QUICK)
        task.compile(backend='eager')
        for _ in range(2):
            got = task(input, target)['loss']
        want = create_task('alfa', copy.deepcopy(model), blocks=blocks, **QUICK)(input, target)['loss']
        torch.testing.assert_close(got, want)


class Dropping(nn.Module):
    """Keeps random places, and tells which: what comes after the feature needs to know."""

    def forward(self, x):
        kept = torch.randperm(x.shape[-1])[:8]
        return x[..., kept], kept


class Places(nn.Module):
    """A network whose tail reads indices from before the feature."""

    def __init__(self):
        super().__init__()
        self.drop, self.body, self.head = Dropping(), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 5)
        self.places = nn.Parameter(torch.randn(16))
        self.double()

    def forward(self, x):
        x, kept = self.drop(x)
        return self.head(self.body(x) + self.places[kept])


def test_indices_of_one_batch_are_not_returned_for_the_next():
    torch.compiler.reset()
    torch.manual_seed(0)
    model = Places()
    other, input, target = copy.deepcopy(model), torch.randn(4, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    plain, task = (create_task('alfa', each, blocks='body', **QUICK) for each in (model, other))
    task.compile(backend='eager')
    with pytest.warns(AlfaWarning, match='compiled in parts'):
        task(input, target)
    for seed in range(3):
        results = []
        for each in (plain, task):
            torch.manual_seed(seed)
            results.append(each(input, target)['loss'])
        torch.testing.assert_close(results[1], results[0])


def test_a_second_compilation_replaces_the_first():
    torch.compiler.reset()
    model, input, target = tiny(size=16, batch=2)
    task, ran = create_task('alfa', model, blocks='2', **QUICK), []
    for name in ('first', 'second'):
        counting = lambda module, inputs, name=name: lambda *a: (ran.append(name), module(*a))[1]  # noqa: E731
        task.compile(backend=counting)
        ran.clear()
        for _ in range(2):
            task(input, target)
        assert set(ran) == {name}


def test_a_prefix_that_fails_leaves_nothing_on_the_model():
    torch.compiler.reset()
    model, input, target = tiny(size=16, batch=2)
    task = create_task('alfa', model, blocks='2', **QUICK)
    task.compile(backend='eager')
    task(input, target)
    with pytest.raises(RuntimeError):
        task._replay._prefix(torch.randn(2, 7, 16, 16, dtype=torch.float64))
    assert not [m for m in model.modules() if type(m).__name__ == '_Exit']
    assert torch.isfinite(task(input, target)['loss'])
