import random

import numpy as np
import pytest
import torch
from timm.data.mixup import mixup_target

from timm_alfa.data.config import AugConfig
from timm_alfa.data.loaders.base import BatchAugment, LoaderSpec


def finish(rank=0, seed=0, num_classes=5, **aug):
    return BatchAugment(
        LoaderSpec(4, (3, 6, 6), (0.5,) * 3, (0.5,) * 3, num_classes, AugConfig(**aug), seed=seed, rank=rank)
    )


def batch(count=4):
    return torch.arange(count * 108, dtype=torch.float32).view(count, 3, 6, 6), torch.arange(count)


def test_nothing_to_do_gives_back_the_batch_itself():
    input, target = batch()
    assert finish()(input, target, 0, 0) == (input, target)


MIXES = (
    dict(mixup=0.5),
    dict(cutmix=1.0),
    dict(mixup=0.5, cutmix=1.0, mixup_mode='elem'),
    dict(cutmix_minmax=(0.2, 0.8), mixup_mode='pair'),
    dict(reprob=1.0, mixup=0.2),
)


@pytest.mark.parametrize('aug', MIXES, ids=str)
def test_draws_follow_from_seed_epoch_step_and_rank(aug):
    def run(rank=0, seed=0, epoch=1, step=2):
        return finish(rank, seed, **aug)(*batch(), epoch, step)

    input, target = run()
    assert target.shape == (4, 5) and torch.allclose(target.sum(1), torch.ones(4))
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    again = run()
    assert again[0].equal(input) and again[1].equal(target)
    for other in (dict(rank=1), dict(seed=1), dict(epoch=2), dict(step=3)):
        assert not run(**other)[0].equal(input)


def test_mixup_mixes_images_as_it_mixes_labels():
    input, target = batch()
    mixed, soft = finish(mixup=0.5)(input.clone(), target, 0, 0)
    weight = soft[0, 0]
    assert 0 < weight < 1
    assert torch.allclose(mixed, weight * input + (1 - weight) * input.flip(0))


def test_the_odd_image_of_a_batch_stays_as_it_is():
    input, target = batch(5)
    mixed, soft = finish(mixup=0.5, smoothing=0.1)(input.clone(), target, 0, 0)
    assert mixed[4].equal(input[4]) and not mixed[0].equal(input[0])
    assert soft[4].equal(mixup_target(target[4:], 5, 1.0, 0.1)[0])
    alone, soft = finish(mixup=0.5)(input[:1].clone(), target[:1], 0, 0)
    assert alone.equal(input[:1]) and soft.shape == (1, 5)


def test_mixup_ends_at_its_epoch_and_targets_stay_soft():
    input, target = batch()
    last, after = (finish(mixup=0.5, mixup_off_epoch=3)(input.clone(), target, epoch, 0) for epoch in (2, 3))
    assert not last[0].equal(input) and after[0].equal(input)
    assert after[1].equal(torch.nn.functional.one_hot(target, 5).float())


def test_erasing_needs_augmentation():
    input, target = batch()
    erased, _ = finish(reprob=1.0, remode='const')(input.clone() + 1, target, 0, 0)
    assert (erased == 0).any() and (erased != 0).any()
    assert finish(reprob=1.0, no_aug=True)(input, target, 0, 0)[0] is input


def test_the_global_generators_are_left_alone():
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    finish(reprob=1.0, mixup=0.3, cutmix=0.5)(*batch(), 0, 0)
    assert torch.get_rng_state().equal(before[0]) and (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
