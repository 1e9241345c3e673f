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


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)
