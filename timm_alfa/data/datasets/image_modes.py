"""Images of 8 bits per channel from images as they are stored.

`Image.convert` clips what has more than 8 bits, so that a picture of 16 bits becomes white. What else is stored is
converted as timm and torchvision do: a palette to its colors, and transparency is dropped.
"""

import numpy as np
from PIL import Image

DEPTH_TAG, PHOTOMETRIC_TAG = 258, 262  # of TIFF: bits per channel, and whether 0 is white
SIXTEEN_BITS_AS_INTEGER = ('PNG', 'PPM')  # formats whose 16 bits Pillow, or an older one, reads as 32-bit integers


def convert_image(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image to 'L' or 'RGB'.

    Raises:
        ValueError: As `to_8_bits`, or Pillow cannot convert its mode.
    """
    image = to_8_bits(image)
    if image.mode == 'LAB':  # which Pillow converts to RGB only
        image = image.convert('RGB')
    return image.convert(mode)


def to_8_bits(image: Image.Image) -> Image.Image:
    """Returns an image whose channels have at most 8 bits: itself, or the upper 8 bits of each gray value.

    That is what Pillow does with the channels of colored images of 16 bits.

    Raises:
        ValueError: Its values have no known range.
    """
    if image.mode not in ('F', 'I') and not image.mode.startswith('I;'):
        return image
    if image.mode in ('F', 'I') and not _is_16_bits(image):
        what = 'floating-point numbers' if image.mode == 'F' else '32-bit integers'
        raise ValueError(
            f"its pixels are {what} (Pillow's mode {image.mode}), whose range is not known: save it with 8 or 16 bits "
            'per channel'
        )
    bits, white_is_zero = _depth(image)
    upper = (np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - upper if white_is_zero else upper)


def _is_16_bits(image: Image.Image) -> bool:
    """Whether 32-bit integers are what Pillow makes of 16 bits."""
    return image.mode == 'I' and image.format in SIXTEEN_BITS_AS_INTEGER


def _depth(image: Image.Image) -> tuple[int, bool]:
    """Returns the number of bits of an image's gray values, and whether 0 is white, which Pillow disregards here."""
    tags = getattr(image, 'tag_v2', {})
    (bits,) = tags.get(DEPTH_TAG, (16,))
    return bits, tags.get(PHOTOMETRIC_TAG, 1) == 0
