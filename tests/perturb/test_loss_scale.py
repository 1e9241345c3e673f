"""The scale of a search's loss: it falls at once, rises slowly, and never above where it began."""

import math

import pytest
import torch

from timm_alfa.perturb import loss_scale
from timm_alfa.perturb.loss_scale import SMALLEST, LossScale, gradients

LOSS, GOOD, BAD = torch.tensor(1.0), torch.ones(2), torch.tensor([1.0, math.nan])


def now(scale):
    return scale(LOSS).item()


def test_it_falls_where_any_gradient_is_not_finite_and_rises_after_a_while(monkeypatch):
    monkeypatch.setattr(loss_scale, 'STEADY', 3)
    scale, seen = LossScale(16.0), []
    for grads in ([GOOD], [None, GOOD, BAD], [torch.tensor([math.inf])], *[[GOOD]] * 2, [BAD], *[[GOOD]] * 13):
        scale.update(LOSS, grads)
        seen.append(now(scale))
    assert seen == [16, 4, 1, 1, 1, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 1, 1, 1, 2, 2, 2, 4, 4]


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_loss_that_is_not_finite_does_not_count(value):
    """Such an update is left out of the run, and must leave no trace."""
    scale = LossScale(16.0)
    for _ in range(50):
        scale.update(torch.tensor(value), [BAD])
    assert now(scale) == 16


def test_it_has_bounds_and_comes_back_from_both(monkeypatch):
    monkeypatch.setattr(loss_scale, 'STEADY', 1)
    scale = LossScale(8.0)
    for _ in range(200):
        scale.update(LOSS, [BAD])
    assert now(scale) == SMALLEST
    for _ in range(30):
        scale.update(LOSS, [GOOD])
    assert now(scale) == 8


def test_it_is_restored_from_a_state(monkeypatch):
    monkeypatch.setattr(loss_scale, 'STEADY', 3)
    one, other = LossScale(16.0), LossScale(16.0)
    for grads in ([BAD], [GOOD], [GOOD]):
        one.update(LOSS, grads)
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.update(LOSS, [GOOD])
    assert now(one) == now(other) == 8


def test_gradients_are_those_of_the_loss_times_the_scale():
    x, unused = torch.tensor([2.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    for scale, factor in ((None, 1), (LossScale(4.0), 4)):
        found = gradients((x**2).sum(), [x, unused], scale, allow_unused=True)
        assert found[0].item() == pytest.approx(4 * factor) and found[1] is None
    assert gradients(x.sum(), [unused], LossScale(4.0), allow_unused=True) == (None,)
