"""Sums of an epoch are the plain means over its images."""

import pytest
import torch
from accelerate import Accelerator

from timm_alfa.training.metrics import Totals


def test_means_are_over_images_and_over_the_steps_that_reported():
    totals, cpu = Totals(torch.device('cpu')), Accelerator(cpu=True)
    output = torch.eye(4)
    totals.add({'loss': torch.tensor(1.0), 'output': output}, torch.tensor([0, 1, 2, 0]))
    totals.add({'loss': torch.tensor(4.0), 'output': output[:2], 'loss_adv': torch.tensor(7.0)}, torch.eye(4)[:2])
    totals.add({'loss': torch.tensor(4.0), 'output': output[:1], 'loss_adv': torch.tensor(1.0)}, torch.tensor([3]))
    means = totals.means(cpu)
    expected = {'train_loss': (4 + 8 + 4) / 7, 'train_loss_adv': (14 + 1) / 3, 'train_top1': 100 * 5 / 7}
    assert means == pytest.approx(expected)
