"""Shared by all tests: tests/ is importable, one thread, and generators that start alike."""
import sys
from pathlib import Path

import pytest
import torch

import timm_alfa  # noqa: F401  registers models

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
