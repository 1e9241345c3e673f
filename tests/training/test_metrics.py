"""Sums of an epoch are the plain means over its images."""

import pytest
import torch
from accelerate import Accelerator

from timm_alfa.training.metrics import Totals
from timm_alfa.utils.rng import seed_all


def test_means_are_over_images_and_over_the_steps_that_reported():
    totals, cpu = Totals(torch.device('cpu')), Accelerator(cpu=True)
    output = torch.eye(4)
    totals.add({'loss': torch.tensor(1.0), 'output': output}, torch.tensor([0, 1, 2, 0]))
    totals.add({'loss': torch.tensor(4.0), 'output': output[:2], 'loss_adv': torch.tensor(7.0)}, torch.eye(4)[:2])
    totals.add({'loss': torch.tensor(4.0), 'output': output[:1], 'loss_adv': torch.tensor(1.0)}, torch.tensor([3]))
    means = totals.means(cpu)
    expected = {'train_loss': (4 + 8 + 4) / 7, 'train_loss_adv': (14 + 1) / 3, 'train_top1': 100 * 5 / 7}
    assert means == pytest.approx(expected)


def test_an_update_has_its_own_random_numbers():
    draws = []
    for parts in ((0, 1, 0), (0, 1, 0), (0, 2, 0), (0, 1, 1), (1, 1, 0), (1, 23), (12, 3)):
        seed_all(*parts)
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[1] and len(set(draws)) == 6
    seed_all(42, 7, 0)
    assert torch.initial_seed() == 7218632608970287819  # or runs that are resumed would not end as undisturbed ones
