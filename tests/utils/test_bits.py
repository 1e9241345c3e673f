"""Truth values as text, and back."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from timm_alfa.utils.bits import PackedBits


@pytest.mark.parametrize('count', [0, 1, 7, 8, 9, 1000])
def test_bits_come_back_in_their_order(count):
    flags = np.random.default_rng(count).random(count) < 0.6
    packed = PackedBits(**json.loads(json.dumps(asdict(PackedBits.pack(flags)))))
    assert (packed.images, packed.correct) == (count, flags.sum())
    assert np.array_equal(packed.unpack(), flags)


def test_the_first_image_is_the_highest_bit():
    assert PackedBits.pack([True, False, False, False, False, False, False, False, True]).bits == 'gIA='  # 0x80 0x80


def test_ten_thousand_images_take_less_than_two_thousand_characters():
    assert len(PackedBits.pack(np.ones(10_000)).bits) < 2000


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(images=17), '2 bytes of bits do not fit 17 images'),
        (dict(correct=3), '2 bits are set, but the record counts 3'),
        (dict(bits='g*A='), 'not base64'),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    packed = dict(images=9, correct=2, bits='gIA=')
    assert PackedBits(**packed).unpack().sum() == 2
    with pytest.raises(ValueError, match=message):
        PackedBits(**{**packed, **change}).unpack()
