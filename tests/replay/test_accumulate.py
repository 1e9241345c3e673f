"""A loss whose graph is gone has the gradients of one whose graph is there."""

import gc
import weakref

import pytest
import timm
import torch
from helpers.measuring import Alive
from helpers.settings import check_step, tiny

from timm_alfa import create_task
from timm_alfa.replay import accumulate
from timm_alfa.replay.accumulate import DeferredLosses


def deferred_loss(loss, given, parameters):
    losses = DeferredLosses(parameters)
    losses.add(loss, given)
    return losses.total()


def setting():
    torch.manual_seed(0)
    weight, bias, unused = (torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    frozen = torch.randn(4, dtype=torch.float64)
    loss = lambda given: ((given[0] * weight + given[1]['b'] * frozen + bias) ** 3).mean()  # noqa: E731
    return x, [weight, bias, unused, frozen], loss


@pytest.mark.parametrize('scale', [1.0, 1024.0, 0.0])
def test_gradients(scale):
    x, params, loss = setting()
    leaves = [x, *params[:3]]
    given = lambda: (x * 2, {'b': x.sin(), 'n': torch.arange(2)})  # noqa: E731
    want = torch.autograd.grad(loss(given()) * scale, leaves, allow_unused=True)
    value = deferred_loss(loss, given(), params)
    torch.testing.assert_close(value, loss(given()))
    got = torch.autograd.grad(value * scale, leaves, allow_unused=True)
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_they_add_up_and_accumulate():
    x, params, loss = setting()
    given = lambda: (x * 2, {'b': x.cos()})  # noqa: E731
    total = deferred_loss(loss, given(), params) + 0.5 * deferred_loss(loss, (x, {'b': x}), params)
    (total / 2).backward()
    got = [x.grad, params[0].grad]
    want = torch.autograd.grad((loss(given()) + 0.5 * loss((x, {'b': x}))) / 2, [x, params[0]])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_the_graph_is_gone():
    x, params, _ = setting()
    freed = []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, grad):
            freed.append(1)
            return grad

    value = deferred_loss(lambda given: (Watch.apply(given) * params[0]).sum(), x, params)
    assert freed == [1]
    value.backward()
    assert freed == [1]


def test_gradients_are_freed_by_the_backward_pass_though_the_loss_is_kept(monkeypatch):
    x, params, loss = setting()
    waiting = []
    apply = accumulate._StoredGradients.apply

    def watched(value, grads, *inputs):
        waiting.extend(weakref.ref(g) for g in grads if g is not None)
        return apply(value, grads, *inputs)

    monkeypatch.setattr(accumulate._StoredGradients, 'apply', watched)
    value = deferred_loss(loss, (x, {'b': x}), params)
    value.backward(retain_graph=True)
    value.backward()
    x.grad = params[0].grad = params[1].grad = None
    gc.collect()
    assert waiting
    assert not any(grad() is not None for grad in waiting)


def test_a_detached_feature_gets_nothing():
    x, params, loss = setting()
    deferred_loss(loss, (x.detach(), {'b': x.detach()}), params).backward()
    assert x.grad is None
    assert params[0].grad.any()


def test_several_losses_hold_one_set_of_gradients():
    x, params, loss = setting()
    losses = DeferredLosses(params)
    values = [losses.add(loss, (x * k, {'b': x.sin()})) for k in (1, 2, 3)]
    assert not any(value.requires_grad for value in values)
    assert len(losses.gradients) == 3
    total = losses.total()
    torch.testing.assert_close(total, torch.stack(values).sum())
    want = torch.autograd.grad(sum(loss((x * k, {'b': x.sin()})) for k in (1, 2, 3)), [x, *params[:2]])
    for a, b in zip(torch.autograd.grad(total, [x, *params[:2]]), want, strict=True):
        torch.testing.assert_close(a, b)


def test_a_feature_that_is_written_into_in_place():
    """Two blocks, so that losses are deferred, one of them before an in-place ReLU."""
    model = timm.create_model('resnet20s').double()
    check_step(model, torch.randn(4, 3, 32, 32).double(), torch.arange(4), blocks='bn1,layer3', steps=2)


def test_adding_a_loss_never_holds_three_sets_of_gradients():
    weights = [torch.randn(256, 256, requires_grad=True) for _ in range(8)]
    losses, size = DeferredLosses(weights), sum(w.nbytes for w in weights)
    with Alive() as alive:
        for _ in range(3):
            losses.add(lambda x: sum((w.mean(0) * x).sum() for w in weights), torch.randn(256))
    assert alive.most < 2.3 * size


@pytest.mark.parametrize('blocks', ['3', '2,3'])
def test_a_hook_on_a_parameter_sees_each_gradient_once(blocks):
    model, input, target = tiny(size=16, batch=2)
    found = []
    for factor in (1, 0.5):
        handle = model.fc.weight.register_hook(lambda grad, factor=factor: grad * factor)
        model.zero_grad()
        create_task('alfa', model, blocks=blocks, steps=1, step_size=0.05)(input, target)['loss'].backward()
        found.append(model.fc.weight.grad.clone())
        handle.remove()
    torch.testing.assert_close(found[1], found[0] / 2)


def test_ema_weights_get_no_gradients(monkeypatch):
    model, input, target = tiny(size=16, batch=2)
    task, seen = create_task('alfa', model, blocks='2,3', steps=1), []
    task.setup_ema()
    add = DeferredLosses.add
    monkeypatch.setattr(DeferredLosses, 'add', lambda self, *args: (seen.append(self.parameters), add(self, *args))[1])
    task(input, target)
    assert {id(p) for p in seen[0]} == {id(p) for p in model.parameters()}
    assert len(seen[0]) == len(list(model.parameters()))
