"""Images to make datasets of."""

import numpy as np
from PIL import Image


def picture(seed, size=(8, 8)):
    """A random RGB image, width and height as given; its top left pixel is the seed."""
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[0, 0] = seed
    return Image.fromarray(pixels)
