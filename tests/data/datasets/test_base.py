import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from timm_alfa.data.datasets.base import Source, Subset, check_labels, image_mode, ordered_names
from timm_alfa.errors import DataError


class Gray(Source):
    def open(self, index):
        if index == 1:
            raise SyntaxError('broken PNG file\nand more')
        return Image.fromarray(np.full((2, 3), index, dtype=np.uint8))


def test_a_broken_image_is_named_and_not_replaced():
    source = Gray('train', [0, 1, 2])
    with pytest.raises(DataError, match=r"image 1 of split 'train': broken PNG file\. .*--skip-corrupt"):
        source.image(1, 'RGB')
    with pytest.raises(DataError, match='image 1'):
        source.size(1)
    good, broken, last = source.images([0, 1, 2], 'RGB')
    assert isinstance(broken, DataError)
    assert (good.getpixel((0, 0)), last.getpixel((2, 1)), last.mode) == ((0, 0, 0), (2, 2, 2), 'RGB')


def test_size_is_channels_height_width():
    assert Gray('train', [0]).size(0) == (1, 2, 3)


def test_sources_travel_to_workers():
    part = pickle.loads(pickle.dumps(Subset(Gray('train', [3, 1]), torch.tensor([0]))))
    assert (len(part), part.source.targets.tolist()) == (1, [3, 1])


@pytest.mark.parametrize('label', [-1, 3])
def test_labels_outside_the_classes_are_named(label):
    source = Gray('train', [0, 1, label, label])
    check_labels(source, torch.tensor([0, 1]), 3)
    with pytest.raises(DataError, match=rf"image 2 of split 'train' has label {label}\b.* valid are 0\.\.2 \(2 such"):
        check_labels(source, torch.arange(4), 3)


def test_ordered_names_follow_the_labels():
    assert ordered_names({'b': 0, 'a': 2, 'also b': 0}) == ('b', '1', 'a')
    assert ordered_names({}) == ()


def test_image_mode_knows_one_and_three_channels():
    assert (image_mode(1), image_mode(3)) == ('L', 'RGB')
    with pytest.raises(DataError, match='4 channels'):
        image_mode(4)
