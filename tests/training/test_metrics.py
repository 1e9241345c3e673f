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


def test_the_rise_compares_the_same_images():
    """Batches that are not perturbed have another clean loss, which does not count."""
    totals, output = Totals(torch.device('cpu')), torch.eye(4)
    target = torch.arange(4)
    for clean, adv in ((8.0, None), (2.0, 2.5), (1.0, 1.4)):
        perturbed = {} if adv is None else {'loss_adv': torch.tensor(adv), 'delta_ratio': torch.tensor(adv / 10)}
        totals.add(
            {'loss': torch.tensor(1.0), 'loss_clean': torch.tensor(clean), 'output': output, **perturbed}, target
        )
    means = totals.means(Accelerator(cpu=True))
    assert means['loss_rise'] == pytest.approx((2.5 + 1.4) / (2.0 + 1.0) - 1)
    assert means['train_loss_clean'] == pytest.approx(11 / 3)
    assert means['delta_ratio'] == pytest.approx(0.195)
