"""What a state restores, piece by piece."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from timm_alfa.training.checkpoint import save_load
from timm_alfa.training.checkpoint.resume import move_position
from timm_alfa.training.checkpoint.save_load import load_state, place_steps, read_state, save_state
from timm_alfa.training.checkpoint.store import CheckpointStore, write_marker
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.metrics import Totals


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


def test_of_several_states_the_newest_is_read(tmp_path, monkeypatch):
    """By their numbers, of which a later one may have more digits."""
    monkeypatch.setattr(save_load, 'content_errors', lambda content: ())
    for number in (999_999, 1_000_000, 2):
        folder = tmp_path / f'{number:06d}-update-{number}'
        folder.mkdir()
        (folder / 'state.json').write_text('{}')
        write_marker(folder)
    assert read_state(tmp_path)[0].name == '1000000-update-1000000'
    (tmp_path / '1000000-update-1000000' / 'COMPLETE').unlink()
    assert read_state(tmp_path)[0].name == '999999-update-999999'


def test_scales_of_losses_come_back(runs):
    """That of the training step, and that of a search, of which every process has its own."""

    def prepared(search, step):
        run = runs.prepare('--task', 'alfa')
        run.task.loss_scale.load_state_dict({'value': search, 'steady': 7})
        run.accelerator.scaler = torch.amp.GradScaler('cpu', init_scale=step)
        run.accelerator.scaler.scale(torch.ones(1))  # it begins with its first use
        return run, Totals(torch.device('cpu'))

    run, totals = prepared(8.0, 128.0)
    store = CheckpointStore(runs.output / 'last')
    runs.output.joinpath('last').mkdir()
    save_state(store, run, TrainState(), totals, run.config.flat())
    path, content = read_state(runs.output / 'last')
    own = load_file(path / 'process-0.safetensors')
    assert (own['loss_scale.value'].item(), own['loss_scale.steady'].item()) == (8.0, 7)
    save_file({**own, 'loss_scale.value': torch.tensor(4.0)}, path / 'process-0.safetensors')

    other, totals = prepared(2.0, 64.0)
    load_state(path, content, other, totals)
    assert other.task.loss_scale.state_dict() == {'value': 4.0, 'steady': 7}
    assert other.accelerator.scaler.get_scale() == 128.0


def test_updates_of_an_epoch_that_was_complete_are_rounded_up():
    """Three batches, four to an update: one update in each epoch; two to an update: two, the second of one batch."""
    state = TrainState(epoch=1, batch=3, updates=2)
    content = dict(options=dict(batch_size=32, grad_accum_steps=4), num_processes=1)
    run = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=1),
        config=SimpleNamespace(data=SimpleNamespace(batch_size=32), optim=SimpleNamespace(grad_accum_steps=2)),
        data=SimpleNamespace(train=range(3), train_images=96),
        updates_per_epoch=2,
        effective_batch=64,
    )
    move_position(state, content, run)
    assert (state.batch, state.updates) == (3, 4)
