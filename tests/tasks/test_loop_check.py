"""Loops that leave out what a task needs are warned once; no other loop is."""

import copy
import re
import warnings

import pytest
import torch
from helpers.settings import tiny

from timm_alfa import create_task
from timm_alfa.errors import AlfaWarning

POST_STEP = r'task.post_step\(\) is not called.*add task.post_step\(\) after optimizer.step\(\)'
GROUPS = r'are in no optimizer.*\*task.extra_param_groups\(\)'


def made(name='alfa', groups=True, optimizer=torch.optim.SGD, **options):
    model, image, target = tiny(size=16, dtype=torch.float32)
    tiny_search = {} if name == 'standard' else dict(blocks='2,3', steps=1)
    task = create_task(name, model, **{**tiny_search, **options})
    extra = task.extra_param_groups() if groups else []
    if optimizer is not torch.optim.SGD:
        extra = [{'params': group['params']} for group in extra]
    return task, optimizer([{'params': list(model.parameters())}, *extra], lr=0.01), (image, target)


def update(task, optimizer, batch, post_step=True, parts=1):
    for _ in range(parts):
        task(*batch)['loss'].backward()
    optimizer.step()
    optimizer.zero_grad()
    if post_step:
        task.post_step()


def warned(action):
    """The messages of our warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        action()
    return [str(each.message) for each in caught if each.category is AlfaWarning]


@pytest.mark.parametrize('name', ['standard', 'alfa', 'l_alfa'])
def test_a_loop_without_post_step_is_warned_once(name):
    task, optimizer, batch = made(name)
    found = warned(lambda: [update(task, optimizer, batch, post_step=False, parts=2) for _ in range(8)])
    assert len(found) == 1 and re.search(POST_STEP, found[0])


@pytest.mark.parametrize('optimizer', [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize('options', [dict(name='l_alfa'), dict(name='alfa', bn='aux')], ids=str)
def test_parameters_in_no_optimizer_are_warned_of_once(optimizer, options):
    task, optimizer_, batch = made(groups=False, optimizer=optimizer, **options)
    found = warned(lambda: [update(task, optimizer_, batch) for _ in range(7)])
    assert len(found) == 1 and re.search(GROUPS, found[0])
    task, optimizer_, batch = made(optimizer=optimizer, **options)
    assert warned(lambda: [update(task, optimizer_, batch) for _ in range(7)]) == []


def accumulated(task, optimizer, batch):
    update(task, optimizer, batch, parts=6)
    update(task, optimizer, batch, parts=6)


def evaluated(task, optimizer, batch):
    for _ in range(5):
        update(task, optimizer, batch)
        task.eval()
        for _ in range(5):
            with torch.no_grad():
                task(*batch)
        task.train()


def timms(task, optimizer, batch):
    for _ in range(6):
        update(task, optimizer, batch, post_step=False)
        task.update_ema()


def without_backward(task, optimizer, batch):
    for _ in range(6):
        update(task, optimizer, batch)
        for _ in range(4):
            task(*batch)


def skipped(task, optimizer, batch):
    """As a gradient scaler does."""
    for _ in range(6):
        task(*batch)['loss'].backward()
        optimizer.zero_grad()


def copied(task, optimizer, batch):
    for _ in range(6):
        copy.deepcopy(task)(*batch)
        update(task, optimizer, batch)


@pytest.mark.parametrize('loop', [accumulated, evaluated, timms, without_backward, skipped, copied])
def test_other_loops_are_not_warned(loop):
    task, optimizer, batch = made('l_alfa', every=2)
    assert warned(lambda: loop(task, optimizer, batch)) == []
