"""One ALFA step on the smallest classifier of every module of timm, replays compared with full passes."""

from pathlib import Path

import pytest
import timm
import torch
from helpers.measuring import calls_of, recorded_calls
from helpers.rewriting import hooked, leaves, rebuilt
from helpers.timm_models import ROWS

import timm_alfa.models
from timm_alfa import create_task
from timm_alfa.replay import norms
from timm_alfa.utils import pytree, rng

QUICK = [row for row in ROWS if not row.large]
LARGE = [row for row in ROWS if row.large]


def build(row):
    torch.manual_seed(0)
    kwargs = {'img_size': row.size} if row.tell else {}
    model = timm.create_model(row.arch, num_classes=10, **kwargs).train()
    with torch.no_grad():  # heads that start at zero let no gradient through
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.02)
    return model, torch.randn(2, 3, row.size, row.size), torch.tensor([1, 3])


def first_of(output):
    return output[0] if isinstance(output, (list, tuple)) else output


def check(row, blocks, steps=1):
    """The step works, the gradient reaches, replays give what full passes with hooks give and skip the front."""
    model, input, target = build(row)
    task = create_task(
        'alfa',
        model,
        lambda output, y: torch.nn.functional.cross_entropy(first_of(output), y),
        blocks=blocks,
        steps=steps,
        step_size=0.01,
    )
    result = task(input, target)
    result['loss'].backward()
    assert torch.isfinite(result['loss'])
    assert result['delta_norm'] > 0
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    compare(model, task, input)


def compare(model, task, input):
    with torch.no_grad(), norms.freeze_running_stats(model):
        torch.manual_seed(1)
        record = task._replay.record(input, None)
        for i, name in enumerate(task.blocks):
            shift = [
                0.1 * torch.randn(f.shape, generator=torch.Generator().manual_seed(i)).to(f.dtype)
                for f in leaves(record.features[i])
            ]
            add = lambda f, s=shift: rebuilt(f, iter([x + d for x, d in zip(leaves(f), s, strict=True)]))  # noqa: E731
            for change, hook in ((pytree.cloned, lambda m, a, o: o), (add, lambda m, a, o, add=add: add(o))):
                found = []
                called = calls_of(model, lambda c=change, f=found, i=i: f.append(task._replay.run(record, {i: c})))
                torch.manual_seed(1)
                with hooked(model, {name: hook}):
                    want = model(input)
                for got, expected in zip(pytree.floats(found[0]), pytree.floats(want), strict=True):
                    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
            late = set(after(model, name, input))
            assert not [n for n in called if n not in late], f'{name}: the front runs again'


def after(model, name, input):
    """Leaf modules that a full pass calls after a feature is there."""
    events = []
    with recorded_calls(model) as called, rng.preserve_rng(torch.device('cpu')):
        handle = model.get_submodule(name).register_forward_hook(lambda m, a, o: events.append(len(called)))
        try:
            model(input)
        finally:
            handle.remove()
    return called[events[-1] :]


def test_the_table_has_every_module_of_timm():
    ours = {module.stem for module in Path(timm_alfa.models.__file__).parent.glob('*.py')}
    assert [row.module for row in ROWS] == [module for module in timm.list_modules() if module not in ours]
    for row in ROWS:
        assert timm.models.is_model_in_modules(row.arch, [row.module])
    assert len(LARGE) <= 3


@pytest.mark.parametrize('row', QUICK, ids=lambda row: row.module)
def test_a_step_on_the_last_stage(row):
    check(row, 'last')


@pytest.mark.sweep
@pytest.mark.parametrize('row', LARGE, ids=lambda row: row.module)
def test_a_step_on_the_last_stage_of_large_models(row):
    check(row, 'last')


@pytest.mark.sweep
@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.module)
def test_a_step_on_every_stage(row):
    check(row, 'all')
