"""What only a GPU shows: captures are legal, replays are the eager updates, runs do not disturb each other."""

import pytest
import torch
from helpers.device_updates import CASES, WARM_UP, assert_same, flags, on_device

from timm_alfa.training import finish
from timm_alfa.training.update import graphs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
EVERY = pytest.mark.parametrize('case', CASES)


@pytest.fixture(autouse=True)
def on_gpu(monkeypatch):
    """accelerate uses the GPU, cuDNN the same kernels each time, and no time goes into pictures."""
    monkeypatch.delenv('ACCELERATE_USE_CPU', raising=False)
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    monkeypatch.setattr(finish, 'draw_plots', lambda *args: None)


def updates(run):
    with graphs.on_stream(run.stream):
        found = on_device(run)
    torch.cuda.synchronize()
    return found


@pytest.mark.parametrize(
    'options',
    [
        ('--crop-padding', '4', '--hflip', '0.5'),
        ('--task', 'noise', '--noise-blocks', 'last'),
        ('--task', 'standard', '--channels-last', '--hflip', '0.5', '--loader', 'timm'),
    ],
    ids=' '.join,
)
def test_two_together_are_each_the_run_that_it_is_alone(runs, options):
    from helpers.training_runs import TINY

    from timm_alfa.training.options.train_args import parse_args
    from timm_alfa.training.together import prepare_together, train_together

    words = {f's{seed}': (*options, '--seed', str(seed), '--cuda-graph', '--epochs', '8') for seed in (1, 2)}
    for name, given in words.items():
        runs(*given, experiment=f'{name}-alone')
    configs = [
        parse_args([*TINY, '--output', str(runs.output), '--experiment', name, *given]) for name, given in words.items()
    ]
    for record in train_together(prepare_together(configs)):
        assert record['status'] == 'finished'
    for name in words:
        weights, others = runs.weights(name), runs.weights(f'{name}-alone')
        assert all(torch.equal(value, others[key]) for key, value in weights.items())


@pytest.mark.parametrize('case', ['standard', 'alfa', 'l_alfa', 'noise'])
def test_replays_do_not_wait(runs, case):
    from helpers.device_updates import batches, nothing_requested

    from timm_alfa.training.metrics import Totals
    from timm_alfa.training.update.device_step import DeviceStep, Parts

    run = runs.prepare(*flags(case), '--cuda-graph')
    run.wrapped.train()
    with graphs.on_stream(run.stream):
        step = DeviceStep(run, Totals(run.accelerator.device))
        windows = [[Parts((batch.input, batch.target), batch.indices)] for batch in batches(run)]
        try:
            for update, window in enumerate(windows):
                if update == graphs.WARM_UP + 2:
                    torch.cuda.set_sync_debug_mode('error')
                step(window, update, nothing_requested)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        step.settle()
    assert step.graphs.captured


def captured_updates(runs, monkeypatch, *words):
    """Updates as graphs, and the same eagerly."""
    with monkeypatch.context() as patch:
        patch.setattr(graphs, 'WARM_UP', 1000)
        expected = updates(runs.prepare(*words, *WARM_UP, '--cuda-graph'))
    captures, capture = [], graphs.Graphs.capture
    monkeypatch.setattr(
        graphs.Graphs, 'capture', lambda self, arguments: captures.append(1) or capture(self, arguments)
    )
    found = updates(runs.prepare(*words, *WARM_UP, '--cuda-graph'))
    assert captures
    return found, expected


@pytest.mark.parametrize('case', ['standard', 'alfa', 'l_alfa'])
def test_replays_in_bf16_with_channels_last(runs, case, monkeypatch):
    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'bf16')
    assert_same(*captured_updates(runs, monkeypatch, *flags(case), '--channels-last'))


@pytest.mark.parametrize(
    'options',
    [
        ('--opt', 'adamw', '--lr', '0.001', '--clip-grad', '0.5'),
        ('--opt', 'momentum', '--clip-grad', '0.1', '--clip-mode', 'agc'),
    ],
    ids=' '.join,
)
def test_replays_with_other_optimizers_and_clipping(runs, options, monkeypatch):
    assert_same(*captured_updates(runs, monkeypatch, *flags('alfa'), *options))


@EVERY
def test_replays_are_the_eager_updates(runs, case, monkeypatch):
    assert_same(*captured_updates(runs, monkeypatch, *flags(case)))


@pytest.mark.parametrize('graph_first', [False, True])
def test_adam_resumes_in_its_other_form(runs, graph_first):
    """Its counts of steps move between the host and the device."""
    words = ('--opt', 'adamw', '--lr', '0.001')
    first, second = (('--cuda-graph',), ()) if graph_first else ((), ('--cuda-graph',))
    runs(*words, *first, '--epochs', '1')
    record = runs(*words, *second, '--epochs', '2', '--resume', 'auto', '--resume-anyway')
    assert record['epochs_done'] == 2


def test_a_failed_capture_leaves_others_able_to_capture(runs):
    """A model that reads from the device, and a run that was built before it failed."""

    def read(module, args):
        args[0].sum().item()

    good, bad = (runs.prepare(*flags('alfa'), '--cuda-graph', experiment=name) for name in ('good', 'bad'))
    bad.model.register_forward_pre_hook(read)
    with graphs.on_stream(bad.stream), pytest.raises(graphs.CaptureError, match='capturing|not permitted'):
        on_device(bad)
    assert_same(updates(good), updates(runs.prepare(*flags('alfa'), '--cuda-graph')))
