"""One optimizer update: what it leaves, and what it returns."""

import pytest
import torch

from timm_alfa.training.metrics import Totals
from timm_alfa.training.update import step
from timm_alfa.training.update.agreement import Flags, Requests
from timm_alfa.training.update.step import Batch, Outcome, TrainStep


@pytest.fixture
def window(runs):
    """A run and the two batches of one of its updates."""
    run = runs.prepare('--task', 'standard', '--grad-accum-steps', '2')
    run.wrapped.train()
    run.data.train.set_epoch(0, 0)
    batches = []
    for input, target in run.data.train:
        batches.append(Batch(input.clone(), target.clone(), list(run.data.train.last_indices)))
    return run, batches[:2]


def nothing():
    return Requests(stop=False, save=False)


def tensors(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def test_an_update_trains_and_adds_up_its_batches(window):
    run, batches = window
    totals, before = Totals(run.accelerator.device), tensors(run)
    result = TrainStep(run, totals)(batches, 0, lambda: Requests(stop=True, save=False))
    assert result == (Flags(bad=False, stop=True, save=False), (Outcome(0),))
    moved = [name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])]
    assert 'fc.weight' in moved and 'conv1.0.weight' in moved
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert totals.sums[1, 0] == sum(len(batch.target) for batch in batches)


@pytest.mark.parametrize('at', [0, 1])
def test_a_bad_batch_skips_the_update_without_a_trace(at, window):
    """And all images of the window are named: which of its batches was bad, the flag does not say."""
    run, (first, second) = window
    totals, before = Totals(run.accelerator.device), tensors(run)
    batches = [first, second]
    batches[at] = batches[at]._replace(input=batches[at].input * float('nan'))
    result = TrainStep(run, totals)(batches, 0, nothing)
    (outcome,) = result.outcomes
    assert result.flags.bad and outcome.skipped_images == len(first.target) + len(second.target)
    assert outcome.bad_images == tuple(sorted([*first.indices, *second.indices]))
    assert all(torch.equal(value, before[name]) for name, value in tensors(run).items())
    assert not totals.sums.any() and all(parameter.grad is None for parameter in run.model.parameters())


def test_requests_are_made_after_the_forward_passes(window, monkeypatch):
    """A signal that arrives during a long forward pass still stops after this update."""
    run, batches = window
    events, forward = [], TrainStep.forward
    monkeypatch.setattr(TrainStep, 'forward', lambda self, batch: (events.append('forward'), forward(self, batch))[1])
    TrainStep(run, Totals(run.accelerator.device))(batches, 0, lambda: (events.append('requests'), nothing())[1])
    assert events == ['forward', 'forward', 'requests']


def test_gradients_are_clipped_after_the_scale_of_the_loss_is_undone(runs, monkeypatch):
    """What a gradient scaler does in fp16, without one: the loss is 1024 times as large until it is undone."""
    weights = []
    for scale in (1, 1024):
        run = runs.prepare('--task', 'standard', '--clip-grad', '0.01', '--lr', '1', '--sched', 'none')
        kind = type(run.accelerator)
        monkeypatch.setattr(kind, 'backward', lambda self, loss, scale=scale: (loss * scale).backward())
        monkeypatch.setattr(
            kind,
            'unscale_gradients',
            lambda self, optimizer, run=run, scale=scale: [p.grad.div_(scale) for p in run.model.parameters()],
        )
        run.wrapped.train()
        run.data.train.set_epoch(0, 0)
        input, target = next(iter(run.data.train))
        TrainStep(run, Totals(run.accelerator.device))([Batch(input, target, [0])], 0, nothing)
        weights.append(tensors(run))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


def test_agc_leaves_the_classifier_alone(runs):
    run = runs.prepare('--task', 'standard', '--clip-grad', '0.01', '--clip-mode', 'agc')
    clipped = {id(p) for p in run.task.clip_parameters(exclude_head=True)}
    assert [name for name, p in run.model.named_parameters() if id(p) not in clipped] == ['fc.weight', 'fc.bias']
    assert len(run.task.clip_parameters()) == len(clipped) + 2


def test_auxiliary_norms_are_clipped_and_eta_is_not(runs, monkeypatch):
    """Gradients that follow from all that is clipped have the requested norm."""
    from timm_alfa.training.update.step import dispatch_clip_grad

    norms = []

    def clip(parameters, *args):
        dispatch_clip_grad(parameters, *args)
        norms.append(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in everything if p.grad is not None])))

    run = runs.prepare(
        '--task', 'l_alfa', '--alfa-blocks', 'all', '--alfa-bn', 'aux', '--clip-grad', '1e-3', '--epochs', '1'
    )
    everything = [p for p in run.task.parameters() if p is not run.task.eta]
    monkeypatch.setattr(step, 'dispatch_clip_grad', clip)
    from timm_alfa.training.train import train

    train(run)
    assert len(everything) > len(list(run.model.parameters()))
    assert norms and all(norm <= 1.001e-3 for norm in norms)
    assert id(run.task.eta) not in {id(p) for p in run.task.clip_parameters()}
