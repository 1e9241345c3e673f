"""Shared by all tests: tests/ is importable, one thread, and generators that start alike."""

import os
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # of the processes that tests start, too: two files run side by side

import pytest
import torch
from hypothesis import HealthCheck, settings

import timm_alfa  # noqa: F401  registers models

torch.set_num_threads(1)
# how fast a machine draws examples says nothing of the code
settings.register_profile('any machine', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('any machine')
sys.path.insert(0, str(Path(__file__).parent))

from helpers.dataset_files import datasets_library  # noqa: F401  a fixture
from helpers.run_folders import make_run  # noqa: F401  a fixture


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
