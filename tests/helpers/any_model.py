"""A step on any model and any loss, compared with full passes and hooks."""

import copy

import torch
import torch.nn.functional as F
from helpers.rewriting import general_step
from helpers.settings import assert_same_buffers, assert_same_grads, grads_of
from torch import nn

from timm_alfa import create_task, resolve_blocks
from timm_alfa.replay.flops import FlopCounter, floor


class Segmenter(nn.Module):
    """Scores of five classes for each pixel, and a number that is penalized, in a dict; no batch norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, image):
        feature = self.body(self.stem(image).relu()).relu()
        return {'mask': self.head(feature), 'energy': feature.square().mean()}


def call_on_image(model, image, label):
    return model(image)


def mask_loss(output, image, label):
    """All pixels of an image have its label."""
    mask = label[:, None, None].expand(-1, *image.shape[2:])
    return F.cross_entropy(output['mask'], mask) + output['energy']


SEGMENTATION = dict(call=call_on_image, loss=mask_loss)


def share_of_floor(model, batch, blocks, steps, call=None, loss=None):
    """Operations of a step relative to the least that an exact one needs."""
    task = create_task('alfa', model, call=call, loss=loss, blocks=blocks, steps=steps, step_size=0.02)
    task(*batch)['loss'].backward()  # the first step learns
    with FlopCounter() as counted:
        task(*batch)['loss'].backward()
    groups = [[name] for name in task.blocks]
    return counted.total / floor(model, groups, *batch, steps=steps, call=task.objective.call)


def check_any_step(model, batch, blocks, *, call=None, loss=None, name='alfa', **options):
    """Loss, every gradient, running statistics and the random generator are those of the plain rewriting, to 1e-9.

    The model has to be in double precision. Two steps: the first one learns what a record needs.
    """
    plain = copy.deepcopy(model)
    task = create_task(name, model, call=call, loss=loss, blocks=blocks, **options)
    objective = task.objective
    names = resolve_blocks(model, blocks)
    for step in range(2):
        torch.manual_seed(step)
        expected = general_step(
            plain,
            names,
            lambda: objective.call(plain, *batch),
            lambda output: objective.loss(output, *batch),
            **options,
        )
        generator = torch.get_rng_state()

        torch.manual_seed(step)
        task.zero_grad()
        result = task(*batch)
        assert torch.equal(generator, torch.get_rng_state()), 'the random generator is in another state'
        result['loss'].backward()

        close = dict(rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(result['loss'].detach(), expected.loss, **close)
        torch.testing.assert_close(result['loss_adv'], expected.loss_adv, **close)
        assert expected.loss_adv > result['loss_clean'], 'nothing was perturbed'
        assert_same_grads(grads_of(task), expected.grads)
        assert_same_buffers(task.model, expected.buffers)
    return task, result
