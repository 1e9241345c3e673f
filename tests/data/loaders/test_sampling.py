import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import WeightedRandomSampler

from timm_alfa.data.loaders import sampling

small = st.integers(1, 7)


def test_seeds_do_not_change_between_versions():
    # A run resumed with a later version must draw what it would have drawn.
    assert sampling.stream_seed('order', 0, 1) == 5464234415807774710


def test_every_part_of_a_seed_counts():
    names = (('a', 0, 1), ('a', 1, 0), ('b', 0, 1), ('a', 0, 1, 0), ('a', 10))
    seeds = {sampling.stream_seed(*parts) for parts in names}
    assert len(seeds) == 5


@given(count=st.integers(1, 60), batch=small, world=small)
def test_train_slices_are_the_order_cut_into_global_batches(count, batch, world):
    steps = sampling.train_steps(count, batch, world)
    seen = [sampling.train_slice(count, step, batch, rank, world) for step in range(steps) for rank in range(world)]
    together = torch.cat(seen).tolist()
    used = count if count < batch * world else count // (batch * world) * batch * world
    assert together == list(range(used))
    if count >= batch * world:
        assert {len(part) for part in seen} == {batch}


@given(steps=st.integers(1, 5), batch=small, world=small)
def test_a_global_batch_does_not_depend_on_the_number_of_processes(steps, batch, world):
    count = steps * batch * world
    for step in range(steps):
        shared = torch.cat([sampling.train_slice(count, step, batch, rank, world) for rank in range(world)])
        assert shared.equal(sampling.train_slice(count, step, batch * world, 0, 1))


@given(count=st.integers(0, 40), world=small)
def test_eval_slices_cover_each_image_once(count, world):
    parts = [sampling.eval_slice(count, rank, world) for rank in range(world)]
    assert torch.cat(parts).tolist() == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epoch_order_is_a_permutation_that_depends_on_seed_and_epoch():
    orders = [sampling.epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o.tolist()) == list(range(50)) for o in orders)
    assert len({tuple(o.tolist()) for o in orders}) == 4
    assert orders[0].equal(sampling.epoch_order(50, 0, 0))


@given(count=st.integers(2, 80), fraction=st.floats(0.01, 0.5), seed=st.integers(0, 3))
def test_random_split_parts_the_images(count, fraction, seed):
    stay, held = sampling.random_split(count, fraction, seed)
    assert sorted(stay.tolist() + held.tolist()) == list(range(count))
    assert len(held) == max(1, round(count * fraction))


def test_smaller_subsets_lie_inside_larger_ones():
    indices = torch.arange(100, 200)
    five, twenty = (set(sampling.random_subset(indices, size, 3).tolist()) for size in (5, 20))
    assert len(five) == 5 and five < twenty <= set(indices.tolist())


def test_seeded_repeats_itself_and_leaves_the_global_generators_alone():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    inside = []
    for _ in range(2):
        with sampling.seeded(7):
            inside.append(draw())
    assert inside[0] == inside[1] != expected
    assert draw() == expected


def test_balanced_order_is_that_of_torchs_weighted_sampler():
    """Drawn with replacement: each of three classes of 90, 9 and 1 images is a third of what is seen."""
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    order = sampling.balanced_order(targets, seed=3, epoch=1)
    weights = [1 / 90] * 90 + [1 / 9] * 9 + [1.0]
    expected = WeightedRandomSampler(weights, 100, generator=sampling.stream('order', 3, 1))
    assert order.tolist() == list(expected)
    assert not order.equal(sampling.balanced_order(targets, seed=3, epoch=2))
    seen = torch.cat([targets[sampling.balanced_order(targets, 0, epoch)] for epoch in range(60)])
    assert (torch.bincount(seen) / len(seen) - 1 / 3).abs().max() < 0.02


def test_repeats_count_what_came_before():
    assert sampling.repeats(torch.tensor([5, 3, 5, 5, 3])) == [0, 0, 1, 2, 1]
