"""The embedded dataset: scikit-learn's 1,797 handwritten digits, nothing to download."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from timm_alfa.data.datasets.base import Source
from timm_alfa.errors import DataError

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig

SIZE = 32  # each 8x8 image is enlarged to the input size of CIFAR networks
TEST_IMAGES = 360


def load_digits_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Loads all digits.

    Returns:
        Images, (1797, 8, 8) uint8 in 0..255, and labels, (1797,).

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError('the embedded digits need scikit-learn: pip install scikit-learn.') from error
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


class DigitsSource(Source):
    """One of the two splits, the same on every machine: 1,437 images to train on, 360 to test on."""

    def __init__(self, split: str):
        images, targets = load_digits_arrays()
        order = np.random.RandomState(0).permutation(len(images))  # NumPy guarantees that RandomState never changes
        chosen = order[TEST_IMAGES:] if split == 'train' else order[:TEST_IMAGES]
        chosen = np.sort(chosen)
        super().__init__(split, targets[chosen], [str(digit) for digit in range(10)])
        self.pixels = images[chosen]

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)

    def label(self, index: int) -> str:
        return f'digit {index} of split {self.split!r}'


def splits(data: 'DataConfig') -> tuple[str, ...]:
    """Returns the names of the splits."""
    return ('train', 'test')


def open_split(data: 'DataConfig', split: str) -> DigitsSource:
    """Opens a split: no other option has an effect."""
    return DigitsSource(split)
