"""Scores on unseen images: the test split and the unused training images, each image with the same weight."""

from dataclasses import asdict

import numpy as np
import pytest

from studies import compare, unseen
from timm_alfa.utils.bits import PackedBits


def record(test, unused, **more):
    test, unused = np.array(test, dtype=bool), np.array(unused, dtype=bool)
    return dict(
        test_correct=asdict(PackedBits.pack(test)),
        unused_correct=asdict(PackedBits.pack(unused)),
        test_images=len(test),
        unused_images=len(unused),
        test_loss=1.0,
        unused_loss=0.5,
        **more,
    )


FOUND = record([1, 0], [1, 1, 0, 1, 1, 1, 1, 0])


def test_images_count_the_same_wherever_they_are_from():
    assert unseen.unseen_top1(FOUND) == 70.0  # 7 of 10: the mean of 50% and 75% would be another number
    assert unseen.unseen_loss(FOUND) == pytest.approx(0.6)
    assert unseen.unseen_correct(FOUND).tolist() == [True, False, True, True, False, True, True, True, True, False]


@pytest.mark.parametrize('missing', ['test', 'unused'])
def test_a_record_without_one_part_has_no_such_score(missing):
    without = {**FOUND, f'{missing}_correct': None, f'{missing}_loss': None}
    assert unseen.unseen_top1(without) is unseen.unseen_loss(without) is unseen.unseen_correct(without) is None
    assert unseen.unseen_top1({}) is None, 'an old record'


def test_metrics_of_a_table_may_be_derived():
    runs = {3: FOUND, 4: {'test_top1': 50.0}}
    assert compare.values(runs, 'unseen_top1') == {3: 70.0}
    assert compare.values(runs, 'test_top1') == {4: 50.0}
