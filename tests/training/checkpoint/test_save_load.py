"""What a state restores, piece by piece."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from timm_alfa.training.checkpoint import save_load
from timm_alfa.training.checkpoint.save_load import place_steps


def adam(**options):
    """Adam after a step."""
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters(), **options)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ('group', 'count', 'place'),
    [
        ({'fused': True}, torch.tensor(3.0), 'meta'),
        ({'fused': True}, torch.tensor(3), 'meta'),
        ({'fused': None, 'capturable': True}, torch.tensor(3.0), 'meta'),
        ({'fused': None, 'capturable': False}, torch.tensor(3.0), 'cpu'),
    ],
)
def test_counts_of_steps_are_where_the_optimizer_keeps_them(group, count, place):
    """A fused one's on the device, in float32, wherever the state had them."""
    parameter = nn.Parameter(torch.empty(2, device='meta'))
    optimizer = SimpleNamespace(param_groups=[{'params': [parameter], **group}], state={parameter: {'step': count}})
    place_steps(optimizer)
    step = optimizer.state[parameter]['step']
    assert (step.device.type, step.dtype) == (place, torch.float32)


@pytest.mark.parametrize('state', [{'momentum_buffer': torch.ones(2)}, {'step': 3}, {'step': torch.tensor(3)}])
def test_other_states_are_left_alone(state):
    """Without a count, with one that is a number, or of an optimizer without a fused form."""
    parameter = nn.Parameter(torch.ones(2))
    group = (
        {'params': [parameter]} if isinstance(state.get('step'), torch.Tensor) else {'params': [parameter], 'fused': 1}
    )
    before = dict(state)
    place_steps(SimpleNamespace(param_groups=[group], state={parameter: state}))
    assert state == before and all(state[key] is before[key] for key in before)


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('changed', [True, False])
def test_an_optimizer_loads_the_state_of_its_other_form(fused, changed, monkeypatch):
    """With other options it keeps its own form, and trains on from the same count."""
    placed = []
    monkeypatch.setattr(save_load, 'place_steps', lambda each: placed.append(each) or place_steps(each))
    optimizer = adam(fused=fused)
    save_load._load_optimizer(optimizer, adam(fused=not fused).state_dict(), changed)
    assert len(placed) == changed
    assert all(group['fused'] == (fused if changed else not fused) for group in optimizer.param_groups)
    optimizer.step()
    assert all(state['step'] == 2 for state in optimizer.state.values())
