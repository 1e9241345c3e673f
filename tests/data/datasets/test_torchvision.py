import struct

import numpy as np
import pytest

from timm_alfa.data import DataConfig
from timm_alfa.data.datasets.torchvision import TorchSource, splits
from timm_alfa.errors import DataError


@pytest.fixture
def mnist(tmp_path):
    """MNIST's files with 3 images to train on and 2 to test on."""
    raw = tmp_path / 'MNIST' / 'raw'
    raw.mkdir(parents=True)
    for name, count in (('train', 3), ('t10k', 2)):
        images = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        (raw / f'{name}-images-idx3-ubyte').write_bytes(struct.pack('>4i', 2051, count, 28, 28) + images.tobytes())
        (raw / f'{name}-labels-idx1-ubyte').write_bytes(struct.pack('>2i', 2049, count) + bytes(range(count)))
    return DataConfig(dataset='torch/mnist', data_dir=str(tmp_path))


def test_splits_are_torchvisions(mnist):
    assert splits(mnist) == ('train', 'test')
    train, test = (TorchSource(mnist, split) for split in splits(mnist))
    assert (train.targets.tolist(), len(test)) == ([0, 1, 2], 2)
    assert train.size(0) == (1, 28, 28)
    assert train.image(2, 'RGB').getpixel((5, 5)) == (2, 2, 2)
    assert train.class_names[0].startswith('0')


def test_qmnist_tells_more_than_classes(tmp_path):
    raw = tmp_path / 'QMNIST' / 'raw'
    raw.mkdir(parents=True)
    (raw / 'qmnist-train-images-idx3-ubyte').write_bytes(struct.pack('>4i', 2051, 2, 28, 28) + bytes(2 * 28 * 28))
    (raw / 'qmnist-train-labels-idx2-int').write_bytes(
        struct.pack('>3i', 3074, 2, 8) + struct.pack('>16i', 7, *range(7), 4, *range(7))
    )
    source = TorchSource(DataConfig(dataset='torch/qmnist', data_dir=str(tmp_path)), 'train')
    assert source.targets.tolist() == [7, 4]


def test_errors_say_what_to_type(tmp_path):
    with pytest.raises(DataError, match=r"unknown dataset torch/ 'cifar11'.*Did you mean 'cifar10'"):
        splits(DataConfig(dataset='torch/cifar11', data_dir=str(tmp_path)))
    with pytest.raises(DataError, match='needs --data-dir'):
        splits(DataConfig(dataset='torch/cifar10'))
    with pytest.raises(DataError, match='--dataset-download'):
        TorchSource(DataConfig(dataset='torch/cifar10', data_dir=str(tmp_path)), 'train')
