"""An update that does not read from the device is the ordinary update, bit for bit, and fit to be a CUDA graph."""

from contextlib import nullcontext

import pytest
import torch
from helpers.device_updates import (
    BAD,
    CASES,
    FUSED,
    REFUSED,
    WARM_UP,
    assert_same,
    batches,
    flags,
    on_device,
    ordinary,
    taped,
)
from helpers.tape import NoReads, ReadsDevice
from helpers.task_table import TABLE
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timm_alfa.training.metrics import Totals
from timm_alfa.training.update.device_update import DeviceRates, DeviceUpdate

EVERY = pytest.mark.parametrize('case', CASES)
OPTIONS = pytest.mark.parametrize(
    'options',
    [
        ('--clip-grad', '0.5'),
        ('--clip-grad', '0.1', '--clip-mode', 'agc'),
        ('--channels-last',),
        ('--freeze-bn',),
        ('--opt', 'momentum', '--momentum', '0'),
        ('--opt', 'sgd', '--layer-decay', '0.7'),
        ('--mixup', '0.2'),
    ],
    ids=' '.join,
)


# equal to the ordinary update

ORDINARY = {}  # what the ordinary updates of a case left


def ordinary_of(runs, case):
    if case not in ORDINARY:
        ORDINARY[case] = ordinary(runs.prepare(*flags(case), *WARM_UP, *FUSED))
    return ORDINARY[case]


@EVERY
def test_updates_are_the_ordinary_ones(runs, case):
    expected = ordinary_of(runs, case)
    found = on_device(runs.prepare(*flags(case), *WARM_UP, '--cuda-graph'))
    assert_same(found, expected)
    assert [outcome.update for outcome in found.outcomes if outcome.skipped_images] == [BAD]
    assert found.counted == len(found.outcomes)  # a skipped update counts


@OPTIONS
def test_updates_are_the_ordinary_ones_with_other_options(runs, options):
    expected = ordinary(runs.prepare(*flags('l_alfa'), *WARM_UP, *FUSED, *options))
    assert_same(on_device(runs.prepare(*flags('l_alfa'), *WARM_UP, '--cuda-graph', *options)), expected)


# rates are in single precision on the device, in which Adam divides in double: those that it holds exactly
EXACT = ('--lr', '0.0009765625', '--sched', 'constant')
ADAPTIVE = pytest.mark.parametrize('name', ['adam', 'adamw'])


@ADAPTIVE
def test_updates_are_the_ordinary_ones_with_other_optimizers(runs, name):
    expected = ordinary(runs.prepare(*flags('alfa'), '--opt', name, *EXACT, *FUSED))
    assert_same(on_device(runs.prepare(*flags('alfa'), '--opt', name, *EXACT, '--cuda-graph')), expected)


@pytest.mark.parametrize('case', ['standard', 'l_alfa', 'adv_train'])
def test_updates_are_the_ordinary_ones_in_bf16(runs, case, monkeypatch):
    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'bf16')
    expected = ordinary(runs.prepare(*flags(case), *WARM_UP, *FUSED))
    assert_same(on_device(runs.prepare(*flags(case), *WARM_UP, '--cuda-graph')), expected)


def test_the_comparison_finds_a_trace_of_a_skipped_update(runs, monkeypatch):
    """Without putting back what changed, statistics differ."""
    expected = ordinary(runs.prepare(*flags('l_alfa'), *WARM_UP, *FUSED))
    monkeypatch.setattr('timm_alfa.training.update.device_update.put_back', lambda tensors, before, bad: None)
    found = on_device(runs.prepare(*flags('l_alfa'), *WARM_UP, '--cuda-graph'))
    different = {name for name, value in expected.tensors.items() if not torch.equal(found.tensors[name], value)}
    assert any(name.endswith('running_mean') for name in different)
    assert any(name.endswith('num_batches_tracked') for name in different)


def test_a_skipped_first_update_leaves_everything_as_it_was(runs):
    """The projection of eta included, which a step would not undo."""
    run = runs.prepare(*flags('l_alfa, joint'), '--cuda-graph')
    run.wrapped.train()
    totals = Totals(torch.device('cpu'))
    update, batch = DeviceUpdate(run, totals), batches(run)[BAD]
    before = {name: value.clone() for name, value in run.task.state_dict().items()}
    update.rates.write()
    update(batch.input, batch.target)
    assert update.bad and not totals.sums.any()
    assert all(torch.equal(value, before[name]) for name, value in run.task.state_dict().items())
    assert run.task.eta.eq(1).all()
    update(*(x.nan_to_num() for x in (batch.input, batch.target)))
    assert not update.bad and totals.sums.any() and not run.task.eta.eq(1).any()


# fit for a graph


@EVERY
def test_an_update_does_not_read(runs, case):
    run = runs.prepare(*flags(case), '--cuda-graph')
    run.wrapped.train()
    update = DeviceUpdate(run, Totals(torch.device('cpu')))
    update.rates.write()
    perturbed = False
    for batch in batches(run):
        if not run.task.is_settled():
            update(batch.input, batch.target)
        else:
            perturbed = perturbed or run.task.perturbs()
            with NoReads():
                update(batch.input, batch.target)
        run.task.count_update()
    assert perturbed or case == 'standard'
    assert run.task.is_settled()


def test_reads_are_found_where_they_are(runs):
    """The first step of a method in pixels reads, and so does every one of moment exchange."""
    for case in ('adv_train', 'moex'):
        run = runs.prepare('--task', case, *FUSED)
        run.wrapped.train()
        update, batch = DeviceUpdate(run, Totals(torch.device('cpu'))), batches(run)[0]
        assert run.task.why_no_graph() or not run.task.is_settled()
        with pytest.raises(ReadsDevice), NoReads():
            update(batch.input, batch.target)


def test_every_method_is_compared_or_refused():
    assert {name for name, _ in CASES.values()} | REFUSED == TABLE.keys()


class NoHostTensors(TorchDispatchMode):
    """Refuses tensors of the host, other than numbers, in calls that give a tensor on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = [x for x in tree_leaves(output) if isinstance(x, torch.Tensor)]
        on_host = [x for x in given if x.device.type == 'cpu' and (x.dim() or func._schema.name == 'aten::_to_copy')]
        if on_host and any(x.device.type == 'meta' for x in (*given, *made)):
            raise AssertionError(f'{func} copies from the host')
        return output


def on_meta(run, monkeypatch):
    """An update of a run that has made one, on a device that refuses any read; and its batch."""
    # on the CPU, where methods may learn what the model is like
    run.wrapped.train()
    batch = batches(run)[0]
    update = DeviceUpdate(run, Totals(torch.device('cpu')))
    update.rates.write()
    update(batch.input, batch.target)
    run.task.count_update()

    # everything moves but the optimizer, whose kernels know no such device
    meta = torch.device('meta')
    run.task.to(meta)
    monkeypatch.setattr(type(run.accelerator), 'device', meta)
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda device: False)
    monkeypatch.setattr(DeviceUpdate, 'step', lambda self: run.task.zero_grad())
    return DeviceUpdate(run, Totals(meta)), batch.input.to(meta), batch.target.to(meta)


@EVERY
def test_an_update_copies_nothing_from_the_host(runs, case, monkeypatch):
    update, input, target = on_meta(runs.prepare(*flags(case), '--cuda-graph'), monkeypatch)
    update(input, target)  # constants are made and kept
    with NoHostTensors():
        update(input, target)


@EVERY
def test_a_replay_of_its_kernels_is_the_ordinary_update(runs, case):
    expected = ordinary_of(runs, case)
    assert_same(on_device(runs.prepare(*flags(case), *WARM_UP, '--cuda-graph'), taped), expected)


@pytest.mark.parametrize('options', [('--clip-grad', '0.5'), ('--opt', 'adamw', *EXACT)], ids=' '.join)
def test_a_replay_with_other_options(runs, options):
    expected = ordinary(runs.prepare(*flags('alfa'), *FUSED, *options))
    assert_same(on_device(runs.prepare(*flags('alfa'), '--cuda-graph', *options), taped), expected)


def test_a_replay_with_rates_of_the_host_is_found(runs, monkeypatch):
    """A number in place of the scalar on the device is baked in."""
    expected = ordinary(runs.prepare(*flags('standard'), *WARM_UP, *FUSED))
    monkeypatch.setattr(DeviceRates, 'in_groups', lambda self: nullcontext())
    found = on_device(runs.prepare(*flags('standard'), *WARM_UP, '--cuda-graph'), taped)
    with pytest.raises(AssertionError):
        assert_same(found, expected)
