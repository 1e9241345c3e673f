"""Running statistics move in the passes that are meant to move them, and in no others."""

import copy

import pytest
import timm
import torch
import torch.nn as nn
from helpers.settings import tiny

from timm_alfa import create_task
from timm_alfa.replay import norms


class Stop(Exception):
    pass


def numbers(model):
    return {k: v.clone() for k, v in model.named_buffers()}


@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('layer', [None, 'evonormb0', 'evonormb2', 'batchnorm'])
def test_frozen_statistics_do_not_move(layer, checkpointing):
    """Batch norms and timm's other layers with running buffers: same outputs and gradients, nothing moved."""
    if layer is None:
        model, input, _ = tiny(size=16)
    else:
        norm = timm.layers.get_norm_act_layer(layer, act_layer='relu')
        model = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 2)).double()
        model.grad_checkpointing = False
        input = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    if checkpointing:
        model.grad_checkpointing = True
    other = copy.deepcopy(model)
    before, held = numbers(model), {k: id(v) for k, v in model.named_buffers()}
    for p in range(2):
        with norms.freeze_running_stats(model):
            out = model(input)
            out.sum().backward()
        want = other(input)
        want.sum().backward()
        if layer is None or p == 0:
            torch.testing.assert_close(out, want, rtol=0, atol=0)
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())
    assert held == {k: id(v) for k, v in model.named_buffers()}
    if norms.batch_norms(model):
        assert not all(torch.equal(v, before[k]) for k, v in other.named_buffers())


def test_a_backward_pass_after_it_is_fine():
    model, input, _ = tiny(size=16)
    with norms.freeze_running_stats(model):
        loss = model(input).sum()
    model(input)
    loss.backward()


@pytest.mark.parametrize('copying', [False, True])
def test_flags_come_back_after_an_exception(copying):
    model, _, _ = tiny()
    model.grad_checkpointing = copying
    model.layer1[0].bn1.track_running_stats = False
    model.layer2[0].bn1.eval()
    state = [(m.training, m.track_running_stats, id(m.running_mean)) for m in norms.batch_norms(model).values()]
    with pytest.raises(Stop), norms.freeze_running_stats(model):
        raise Stop
    assert state == [(m.training, m.track_running_stats, id(m.running_mean)) for m in norms.batch_norms(model).values()]


def test_norms_in_evaluation_are_used_as_they_are():
    """A frozen norm normalizes by its running statistics in search steps, too."""
    model, input, _ = tiny(size=16)
    for norm in norms.batch_norms(model).values():
        norm.eval()
    want = model(input)
    with norms.freeze_running_stats(model):
        torch.testing.assert_close(model(input), want, rtol=0, atol=0)


def test_auxiliary_norms_replace_the_models():
    model, input, _ = tiny(size=16)
    aux = norms.make_aux_norms(model)
    assert {k.replace('/', '.') for k in aux} == set(norms.batch_norms(model))
    before = numbers(model)
    with torch.no_grad():
        for module in aux.values():
            module.weight.mul_(2)
    with norms.swap_norms(model, aux):
        out = model(input)
    assert not torch.allclose(out, model.eval()(input))
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())
    assert all(int(m.num_batches_tracked) == 1 for m in aux.values())
    assert not any('_compiled_call_impl' in m.__dict__ for m in model.modules())


@pytest.mark.parametrize('bn', ['clean', 'aux'])
def test_a_step_looks_for_norms_once(monkeypatch, bn):
    """Not before each of its backward passes: a walk of all modules takes as long as a layer."""
    model, input, target = tiny(size=16)
    task = create_task('alfa', model, steps=4, blocks='all', bn=bn)
    task(input, target)
    asked, has_statistics = [], norms._has_statistics
    monkeypatch.setattr(norms, '_has_statistics', lambda module: asked.append(module) or has_statistics(module))
    model.conv1.register_forward_pre_hook(lambda module, args: walks.append(len(asked)))
    walks = []
    task(input, target)
    assert walks == [len(list(model.modules()))]
    if bn == 'clean':
        assert len(asked) == walks[0]


def test_a_norm_that_is_swapped_between_steps_is_frozen():
    model, input, target = tiny(size=16)
    task = create_task('alfa', model, steps=2, blocks='1')
    task(input, target)
    model.layer3[0].bn1 = copy.deepcopy(model.layer3[0].bn1)
    before = int(model.layer3[0].bn1.num_batches_tracked)
    task(input, target)
    assert model.layer3[0].bn1.num_batches_tracked == before + 1


def test_statistics_of_every_dtype_are_restored():
    model, input, _ = tiny(size=16)
    model.layer1[0].bn1.float()
    model.layer1[0].bn1.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    model.layer1[0].bn1.register_forward_hook(lambda module, args, output: output.double())
    statistics, before = norms.RunningStatistics(model), numbers(model)
    assert {len({buffer.dtype for buffer in buffers}) for buffers in statistics.buffers} == {1}
    assert len(statistics.buffers) == 3
    model(input)
    moved = numbers(model)
    statistics.restore()
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())
    model(input)
    statistics.remember()
    model(input)
    statistics.restore()
    assert all(torch.equal(v, moved[k]) for k, v in model.named_buffers())
