"""A step on any model and any loss, compared with full passes and hooks."""

import copy

import torch
from helpers.rewriting import general_step
from helpers.settings import assert_same_buffers, assert_same_grads, grads_of

from timm_alfa import create_task, resolve_blocks


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
