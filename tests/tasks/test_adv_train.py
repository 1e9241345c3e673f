"""Adversarial training against its definition: a plain attack, and the loss of what it finds."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.settings import assert_same_buffers, assert_same_grads, grads_of, tiny

from timm_alfa import create_task

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize('random_start', [True, False])
def test_a_step_is_the_definition(random_start):
    model, input, target = tiny(size=16)
    other, pixels = copy.deepcopy(model), torch.sigmoid(input)
    mean, std = (pixels.new_tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    steps, step_size, eps = 4, 0.03, 0.05

    torch.manual_seed(3)
    start = torch.empty_like(pixels).uniform_(-eps, eps) if random_start else torch.zeros_like(pixels)
    before, at = copy.deepcopy(other.state_dict()), (pixels + start).clamp(0, 1)
    for _ in range(steps):
        at = at.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(other((at - mean) / std), target), at)
        at = torch.maximum(torch.minimum(at + step_size * grad.sign(), pixels + eps), pixels - eps).clamp(0, 1)
    other.load_state_dict(before)
    output = other((at.detach() - mean) / std)
    loss = F.cross_entropy(output, target)
    loss.backward()

    task = create_task(
        'adv_train', model, steps=steps, step_size=step_size, eps=eps, random_start=random_start, mean=MEAN, std=STD
    )
    torch.manual_seed(3)
    result = task((pixels - mean) / std, target)
    result['loss'].backward()
    torch.testing.assert_close(result['loss'].detach(), loss.detach())
    torch.testing.assert_close(result['loss_adv'], loss.detach())
    torch.testing.assert_close(result['output'].detach(), output.detach())
    expected = (at - pixels).detach().flatten(1).norm(dim=1).mean()
    torch.testing.assert_close(result['delta_norm'].double(), expected, rtol=1e-6, atol=0)
    assert_same_grads(grads_of(task), {k: p.grad for k, p in other.named_parameters()})
    assert_same_buffers(model, dict(other.named_buffers()))


def test_the_defaults_are_madrys():
    task = create_task('adv_train', tiny(size=16)[0])
    config = task.config
    assert (config.steps, config.step_size, config.eps, config.random_start) == (10, 2 / 255, 8 / 255, True)


def test_images_stay_in_0_1_and_within_eps():
    model, input, target = tiny(size=16)
    mean, std = (input.new_tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    pixels = torch.rand_like(input).mul(1.4).sub(0.2).clamp(0, 1)
    task = create_task('adv_train', model, mean=MEAN, std=STD, steps=3)
    images, delta = task.attack((pixels - mean) / std, target)
    found = images * std + mean
    assert found.min() >= -1e-12
    assert found.max() <= 1 + 1e-12
    assert (found - pixels).abs().max() <= 8 / 255 + 1e-12
    torch.testing.assert_close(found - pixels, delta)


def test_running_statistics_move_once_a_step():
    model, input, target = tiny(size=16)
    before = int(model.bn1.num_batches_tracked)
    create_task('adv_train', model, steps=3)(input, target)
    assert model.bn1.num_batches_tracked == before + 1


def test_a_network_in_half_precision_is_attacked_in_large_batches():
    """Its loss is in half precision, too, and must not be scaled beyond that."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 5)).half()
    task = create_task('adv_train', model, mean=MEAN, std=STD, steps=1, random_start=False)
    _, delta = task.attack(torch.zeros(128, 3, 4, 4).half(), torch.arange(128) % 5)
    assert delta.ne(0).double().mean() > 0.9
