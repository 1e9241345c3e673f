"""Images from files and bytes that others may have written."""

import io
from functools import cache
from pathlib import Path
from typing import BinaryIO, Union

from PIL import Image, UnidentifiedImageError

from timm_alfa.utils.files import open_regular

# Pillow recognizes a format by the content, whatever a file is called. These are pictures that it decodes itself, JPEG
# including MPO. It would start Ghostscript for EPS, and call Windows for WMF; BUFR, GRIB, HDF5 and MPEG need a program
# of the user's. The other formats are of fonts, textures and old software: each decoder is more code that a stranger's
# bytes reach. TGA has no signature, so it is tried last.
FORMATS = (
    *('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'PPM', 'TIFF'),
    *('AVIF', 'JPEG2000', 'DIB', 'ICO', 'QOI', 'PCX', 'SGI', 'TGA'),
)


@cache
def readable_formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that the installed Pillow knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_extensions() -> frozenset[str]:
    """Returns the extensions of image files, in lower case and with the dot."""
    known = {*readable_formats(), 'MPO'}
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in known)


def read_image(path: Union[str, Path]) -> Image.Image:
    """Decodes an image file.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        Exception: As `decode_image`.
    """
    with open_regular(path, follow_links=True) as file:
        return decode_image(file)


def decode_image(file: Union[bytes, BinaryIO]) -> Image.Image:
    """Decodes an image completely, so that its file can be closed; of several frames or pages, the first.

    Raises:
        ValueError: It is empty, of another format than `FORMATS`, or larger than Pillow's limit, which Pillow itself
            only warns of up to twice the limit.
        Exception: It is damaged: decoders raise whatever the bytes lead them to.
    """
    stream = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        image = Image.open(stream, formats=readable_formats())
    except UnidentifiedImageError as error:
        raise ValueError(_unidentified(stream)) from error
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise ValueError(f'it has {image.width} x {image.height} pixels, more than {most}')
    image.load()
    return image


def _unidentified(stream: BinaryIO) -> str:
    """Returns what is wrong with a file that Pillow does not recognize."""
    if not stream.seek(0, io.SEEK_END):
        return 'it is empty'
    return f'cannot identify image file: it is damaged, or none of {", ".join(readable_formats())}'
