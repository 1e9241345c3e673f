"""Runs with --cuda-graph: on a CPU the same updates as on a GPU, though not as graphs."""

import logging

import pytest
import torch
from helpers.device_updates import FUSED

from timm_alfa.errors import ConfigError
from timm_alfa.training.trainer import Trainer, TrainingError
from timm_alfa.training.update.agreement import Requests
from timm_alfa.training.update.device_step import AHEAD, Mailbox

GRAPH = ('--cuda-graph',)
STATE = ('skipped_updates', 'skipped_images', 'best_epoch', 'val_loss')


def assert_same_run(runs, found, expected):
    """Two finished runs have the same weights, rows and counts."""
    for name in ('model_last.safetensors', 'model_best.safetensors'):
        weights = runs.weights(expected['experiment'], name)
        other = runs.weights(found['experiment'], name)
        assert weights.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in weights.items())
    assert runs.rows(found['experiment']) == runs.rows(expected['experiment'])
    assert {key: found[key] for key in STATE} == {key: expected[key] for key in STATE}


class Late:
    """An event that has happened after a few queries, or waited for."""

    def __init__(self, times):
        self.times = times

    def query(self):
        self.times -= 1
        return self.times <= 0

    def synchronize(self):
        self.times = 0


@pytest.fixture
def late_device(monkeypatch):
    """What an update reports arrives a few updates later, as on a GPU."""
    send = Mailbox.send
    monkeypatch.setattr(Mailbox, 'send', lambda self: (send(self)[0], Late(5)))


@pytest.fixture
def nan_batches(monkeypatch):
    """Each process's images of some updates are not finite; a set of updates."""
    from timm_alfa.data.loaders.in_memory import MemoryLoader

    bad, made = set(), MemoryLoader.make
    updates = {}

    def make(self, rows, draws):
        input = made(self, rows, draws)
        if not self.subset.train:
            return input
        update = updates[id(self)] = updates.get(id(self), -1) + 1
        return input * float('nan') if update in bad else input

    monkeypatch.setattr(MemoryLoader, 'make', make)
    return bad


@pytest.mark.parametrize(
    'options',
    [
        (),
        ('--task', 'l_alfa', '--alfa-blocks', '1,2', '--warmup-updates', '3'),
        ('--mixup', '0.2', '--reprob', '0.5'),
        ('--task', 'noise', '--loader', 'timm'),
        ('--torchcompile', 'eager', '--epochs', '1'),
    ],
    ids=' '.join,
)
def test_a_run_is_the_same_with_it(runs, options):
    expected = runs(*options, *FUSED, experiment='ordinary')
    assert_same_run(runs, runs(*options, *GRAPH, experiment='graph'), expected)


@pytest.mark.parametrize('options', [(), ('--alfa-every', '2'), ('--alfa-start', '5')], ids=' '.join)
def test_a_run_is_the_same_if_the_host_looks_late(runs, options, nan_batches, late_device):
    nan_batches.update({2, 3, 5, 7})
    expected = runs(*options, *FUSED, experiment='ordinary')
    found = runs(*options, *GRAPH, experiment='graph')
    assert expected['skipped_updates'] == 4
    assert_same_run(runs, found, expected)


def test_too_many_skipped_updates_in_a_row_end_a_run(runs, nan_batches, late_device, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('timm_alfa'), 'propagate', True)
    nan_batches.update(range(12))
    with pytest.raises(TrainingError, match='not finite in 3 updates in a row, up to update 3 in epoch 1'):
        runs(*GRAPH, '--nan-patience', '3')
    # pytest may hear a logger twice, once where it does not propagate
    skipped = {record.getMessage() for record in caplog.records if 'update skipped' in record.getMessage()}
    assert len(skipped) == 3


def test_the_host_is_never_too_far_ahead(runs, late_device, monkeypatch):
    from timm_alfa.training.update.device_step import DeviceStep

    monkeypatch.setattr(Late, 'query', lambda self: False)
    waiting, arrived = [], DeviceStep.arrived

    def watched(self):
        waiting.append(len(self.waiting))
        return arrived(self)

    monkeypatch.setattr(DeviceStep, 'arrived', watched)
    monkeypatch.setattr(DeviceStep, 'is_idle', lambda self: True)
    runs(*GRAPH, '-b', '4', '--epochs', '1')
    assert max(waiting) == AHEAD


@pytest.mark.parametrize('stop_after', [4, 8])
def test_a_resumed_run_is_the_uninterrupted_one(runs, stop_after, monkeypatch, nan_batches):
    options = (*GRAPH, '--task', 'l_alfa', '--alfa-blocks', '1,2')
    expected = runs(*options, experiment='whole')
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, 'requests', lambda self: Requests(stop=self.state.updates + 1 == stop_after, save=False))
        stopped = runs(*options, experiment='resumed')
    assert stopped['status'] == 'stopped' and stopped['updates'] == stop_after
    assert_same_run(runs, runs(*options, '--resume', 'auto', experiment='resumed'), expected)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--model-ema',), '--cuda-graph does not support --model-ema: leave one out'),
        (('--grad-accum-steps', '2'), '--cuda-graph does not support --grad-accum-steps: use a larger --batch-size'),
        (('--grad-checkpointing',), '--cuda-graph does not support --grad-checkpointing'),
        (('--torchcompile', 'eager', '--torchcompile-mode', 'reduce-overhead'), 'use max-autotune-no-cudagraphs'),
        (('--torchcompile', 'cudagraphs'), '--cuda-graph does not support --torchcompile: use inductor'),
        (('--opt', 'adagrad'), "needs an optimizer with a fused form, and 'adagrad' has none"),
        (('--opt', 'lion'), "needs an optimizer with a fused form, and 'lion' has none"),
        (('--opt-kwargs', 'dampening=0.1'), "does not support 'dampening' in --opt-kwargs"),
        (('--task', 'moex'), 'cannot run this task: it draws on the host'),
        (('--drop', '0.1'), 'cannot run a model that draws random numbers'),
        (('--drop-path', '0.1'), 'cannot run a model that draws random numbers'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, tuple) else '',
)
def test_what_it_does_not_support_is_refused(runs, options, message):
    with pytest.raises(ConfigError, match='--cuda-graph') as raised:
        runs(*GRAPH, *options)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert not any(runs.output.iterdir())


def test_fp16_and_several_processes_are_refused(runs):
    from types import SimpleNamespace

    from accelerate.utils import DistributedType

    from timm_alfa.training.preflight.graph import check_graph

    run = runs.prepare(*GRAPH)
    several = dict(num_processes=2, distributed_type=DistributedType.MULTI_CPU, mixed_precision='fp16')
    accelerator = SimpleNamespace(device=torch.device('cpu'), autocast=run.accelerator.autocast, **several)
    with pytest.raises(ConfigError) as raised:
        check_graph(run.task, accelerator, (3, 32, 32))
    one, other = str(raised.value).splitlines()
    assert 'runs in one process' in one and 'cannot run in fp16' in other


def test_the_check_for_draws_leaves_no_trace(runs):
    run = runs.prepare(*GRAPH, '--task', 'standard')
    other = runs.prepare('--task', 'standard')
    assert all(torch.equal(a, b) for a, b in zip(run.model.buffers(), other.model.buffers(), strict=True))
