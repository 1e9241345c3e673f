"""When a function becomes a CUDA graph, and what is said if it does not; torch's capture is replaced by a stand-in."""

import logging
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from timm_alfa.training.update import graphs
from timm_alfa.training.update.graphs import PATIENCE, WARM_UP, CaptureError, Graphs, search_kernels


@pytest.fixture
def make(monkeypatch):
    """Makes `Graphs` without a GPU; a capture calls the function, and ends with an error of its own if that fails."""

    @contextmanager
    def capture(graph, **_):
        try:
            yield
        except RuntimeError:
            raise RuntimeError('operation failed due to a previous error during capture')  # noqa: B904

    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, 'graph', capture)
    monkeypatch.setattr(graphs.gc, 'collect', lambda: 0)
    monkeypatch.setattr(graphs, 'OwnGenerator', lambda device: nullcontext())
    stream = SimpleNamespace(device=torch.device('cpu'), device_index=0)
    return lambda function, is_settled=lambda: True: Graphs(function, stream, is_settled)


def call(made, times, kind=True):
    for _ in range(times):
        made((torch.zeros(2),), kind=kind, seed=(0,))


def test_each_kind_warms_up_before_its_capture(make):
    calls = []
    made = make(lambda x: calls.append(1))
    call(made, WARM_UP, kind=True)
    call(made, WARM_UP, kind=False)
    assert len(calls) == 2 * WARM_UP and not made.captured
    call(made, 4, kind=True)
    assert len(calls) == 2 * WARM_UP + 1 and len(made.captured) == 1


def test_what_never_settles_is_said_once(make, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('timm_alfa'), 'propagate', True)
    calls = []
    made = make(lambda x: calls.append(1), is_settled=lambda: False)
    call(made, PATIENCE - 1)
    assert not caplog.records
    call(made, PATIENCE)
    assert len(calls) == 2 * PATIENCE - 1 and not made.captured
    assert {record.getMessage().partition(' updates')[0] for record in caplog.records} == {
        f'warning: --cuda-graph: after {PATIENCE}'
    }


def test_a_failed_capture_names_the_call(make):
    """Not the error with which the capture then ends."""
    calls = []

    def reads(x):
        calls.append(1)
        if len(calls) > WARM_UP:
            raise RuntimeError('operation not permitted when stream is capturing\nmore')

    made = make(reads)
    call(made, WARM_UP)
    message = r'cannot be captured: operation not permitted when stream is capturing \(in reads, .*test_graphs.py:\d+\)'
    with pytest.raises(CaptureError, match=message):
        call(made, 1)
    assert not made.captured


@pytest.mark.parametrize(
    ('device', 'deterministic', 'searches'), [('cuda', False, True), ('cuda', True, False), ('cpu', False, False)]
)
def test_when_cudnn_searches_for_kernels(device, deterministic, searches, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', deterministic)
    search_kernels(torch.device(device))
    assert torch.backends.cudnn.benchmark == searches
