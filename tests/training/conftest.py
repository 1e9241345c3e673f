"""Fixtures of the tests of training."""

import pytest
from accelerate.state import AcceleratorState, PartialState
from helpers.training_runs import Runs


@pytest.fixture(autouse=True)
def fresh_accelerate(monkeypatch):
    """Each run sets accelerate up anew; the tests' threads are few."""
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'true')
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


@pytest.fixture(autouse=True)
def no_plots(request):
    """Drawing curves takes longer than many a run of a test: only tests with the fixture `plots` do it."""
    if 'plots' in request.fixturenames:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('timm_alfa.training.finish.draw_plots', lambda *args, **kwargs: None)
        yield


@pytest.fixture
def plots():
    """Runs draw their plots."""


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)
