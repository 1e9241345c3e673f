import sys

import numpy as np
import pytest

from timm_alfa.data.datasets.digits import DigitsSource, load_digits_arrays
from timm_alfa.errors import DataError


def test_splits_are_fixed_and_share_no_image():
    train, test = DigitsSource('train'), DigitsSource('test')
    assert (len(train), len(test)) == (1437, 360)
    images, targets = load_digits_arrays()
    together = np.concatenate([train.pixels, test.pixels])
    assert sorted(map(bytes, together)) == sorted(map(bytes, images))
    assert np.bincount(np.concatenate([train.targets, test.targets])).tolist() == np.bincount(targets).tolist()
    assert test.targets[:8].tolist() == DigitsSource('test').targets[:8].tolist()


def test_images_use_the_whole_range_and_are_enlarged():
    images, _ = load_digits_arrays()
    assert (images.dtype, images.min(), images.max()) == (np.uint8, 0, 255)
    source = DigitsSource('train')
    image = source.image(0, 'RGB')
    assert image.size == (32, 32) and source.size(0) == (1, 32, 32)
    assert source.class_names == tuple('0123456789')


def test_without_scikit_learn_one_line_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(DataError, match='pip install scikit-learn'):
        DigitsSource('train')
