"""Seeds: what is drawn after them, on every device that exists."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from timm_alfa.utils.rng import seed_all, seed_of


def draws():
    return (
        random.random(),
        np.random.rand(3).tolist(),
        torch.randn(700).tolist(),
        torch.randperm(50).tolist(),
        torch.initial_seed(),
        torch.get_rng_state().tolist(),
    )


def test_an_update_has_its_own_random_numbers():
    drawn = []
    for parts in ((0, 1, 0), (0, 1, 0), (0, 2, 0), (0, 1, 1), (1, 1, 0), (1, 23), (12, 3)):
        seed_all(*parts)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] and len(set(drawn)) == 6
    seed_all(42, 7, 0)
    assert torch.initial_seed() == 7218632608970287819  # or resumed runs would not end as undisturbed ones


def test_draws_are_those_after_manual_seed():
    for update in range(20):
        seed_all(42, update, 0)
        found = draws()
        seed = seed_of(f'42:{update}:0')
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        torch.manual_seed(seed)
        assert found == draws()


@pytest.mark.parametrize('name', ['manual_seed_all', 'manual_seed'])
def test_an_accelerator_is_seeded(name, monkeypatch):
    """All devices of its kind; MPS has one and no function for all."""
    seeds = []
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: True)
    monkeypatch.setattr(torch, 'get_device_module', lambda: SimpleNamespace(**{name: seeds.append}))
    seed_all(42, 7, 0)
    assert seeds == [7218632608970287819]
