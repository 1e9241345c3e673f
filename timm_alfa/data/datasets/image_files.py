"""Images from files and bytes that others may have written."""

import io
from pathlib import Path
from typing import BinaryIO, Union

from PIL import Image

from timm_alfa.utils.files import open_regular

# Pillow recognizes a format by the content, whatever a file is called, and would start Ghostscript for EPS. These are
# decoded without another program; JPEG includes MPO.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'PPM', 'TIFF')


def read_image(path: Union[str, Path]) -> Image.Image:
    """Decodes an image file.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        Exception: As `decode_image`.
    """
    with open_regular(path, follow_links=True) as file:
        return decode_image(file)


def read_rgb_image(path: str) -> Image.Image:
    """Decodes an image file to RGB, as torchvision's loaders do."""
    return read_image(path).convert('RGB')


def decode_image(file: Union[bytes, BinaryIO]) -> Image.Image:
    """Decodes an image completely, so that its file can be closed.

    Raises:
        ValueError: It is larger than Pillow's limit, which Pillow itself only warns of up to twice the limit.
        Exception: It is of another format than `FORMATS`, or damaged: decoders raise whatever the bytes lead them to.
    """
    image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise ValueError(f'it has {image.width} x {image.height} pixels, more than {most}')
    image.load()
    return image
