"""What processes agree on, and what counts as finite."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.training.update.agreement import Flags, Requests, exchange, is_finite


@pytest.mark.parametrize(
    ('losses', 'bad'), [((1.0, 2.0), False), ((float('nan'), 2.0), True), ((1.0, float('inf')), True)]
)
def test_flags_are_those_of_one_process(losses, bad):
    """Any batch whose loss is not finite makes the whole update bad."""
    pending = exchange(Accelerator(cpu=True), [torch.tensor(loss) for loss in losses], Requests(stop=False, save=True))
    assert pending.wait() == Flags(bad=bad, stop=False, save=True) and bool(pending.own_bad) == bad


@pytest.mark.parametrize(
    'spoil',
    [
        lambda model: model[0].weight.data[0].fill_(float('inf')),
        lambda model: model[1].running_var[1:].fill_(float('nan')),
    ],
)
def test_what_is_not_finite_is_seen(spoil):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert is_finite(model) and is_finite(nn.Identity())
    spoil(model)
    assert not is_finite(model)


def test_weights_that_do_not_train_may_be_infinite():
    model = nn.Linear(2, 2).requires_grad_(False)
    model.weight.data[0, 0] = float('-inf')
    assert is_finite(model)
