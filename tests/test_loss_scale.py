"""The scale of a search's loss: it falls at once, rises slowly, and never above where it began."""
import math

import pytest
import torch

from timm_alfa import loss_scale
from timm_alfa.loss_scale import LossScale, gradients

GOOD, BAD = torch.ones(2), torch.tensor([1.0, math.nan])


def now(scale):
    return scale(torch.tensor(1.0)).item()


def test_it_falls_where_any_gradient_is_not_finite_and_rises_after_a_while(monkeypatch):
    monkeypatch.setattr(loss_scale, 'STEADY', 3)
    scale, seen = LossScale(16.0), []
    for grads in ([GOOD], [None, GOOD, BAD], [torch.tensor([math.inf])], *[[GOOD]] * 2, [BAD], *[[GOOD]] * 13):
        scale.update(grads)
        seen.append(now(scale))
    assert seen == [16, 4, 1, 1, 1, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 1, 1, 1, 2, 2, 2, 4, 4]


def test_it_never_rises_above_where_it_began(monkeypatch):
    monkeypatch.setattr(loss_scale, 'STEADY', 1)
    scale = LossScale(8.0)
    for _ in range(5):
        scale.update([GOOD])
    assert now(scale) == 8


def test_it_goes_on_from_a_state(monkeypatch):
    monkeypatch.setattr(loss_scale, 'STEADY', 3)
    one, other = LossScale(16.0), LossScale(16.0)
    for grads in ([BAD], [GOOD], [GOOD]):
        one.update(grads)
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.update([GOOD])
    assert now(one) == now(other) == 8


def test_gradients_are_those_of_the_loss_times_the_scale():
    x, unused = torch.tensor([2.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    for scale, factor in ((None, 1), (LossScale(4.0), 4)):
        found = gradients((x ** 2).sum(), [x, unused], scale, allow_unused=True)
        assert found[0].item() == pytest.approx(4 * factor) and found[1] is None
    assert gradients(x.sum(), [unused], LossScale(4.0), allow_unused=True) == (None,)
