"""Decoded images of a source in one uint8 tensor, shared by all loaders that read from it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from tqdm import tqdm

from timm_alfa.data.datasets.base import Source, image_mode
from timm_alfa.errors import DataError

CHUNK = 256  # images that a thread decodes at a time
SHOW_PROGRESS_ABOVE = 20_000  # images
ON_DEVICE_BELOW = 2 * 2**30  # bytes; a larger cache stays in the host's memory


class ImageCache:
    """Images of a source, decoded once.

    Args:
        source: Where the images come from.
        indices: Those to decode, (n,) int64.
        size: Channels, height and width to decode to.
        interpolation: How images of another size are resized.
        workers: Threads that decode.
        skip_corrupt: Whether images that cannot be read are left out.
        progress: Whether to show a bar for many images.

    Attributes:
        pixels: uint8 (n, channels, height, width).
        row: Row of each image of the source, (len(source),) int64; -1 if it is not in the cache.
        corrupt: Indices of images that could not be read.

    Raises:
        DataError: Without `skip_corrupt`, an image cannot be read.
    """

    def __init__(
        self,
        source: Source,
        indices: torch.Tensor,
        size: tuple[int, int, int],
        interpolation: str = 'bicubic',
        *,
        workers: int = 0,
        skip_corrupt: bool = False,
        progress: bool = False,
    ):
        self.source = source
        pixels, errors = _decode(source, indices, size, interpolation, workers, progress)
        if errors and not skip_corrupt:
            first = errors[min(errors)]
            raise DataError(str(first) + (f' ({len(errors)} such images.)' if len(errors) > 1 else '')) from first
        good = torch.ones(len(indices), dtype=torch.bool)
        good[list(errors)] = False
        self.corrupt = {int(indices[at]) for at in errors}
        self.pixels = pixels[good] if errors else pixels
        self.row = torch.full((len(source),), -1, dtype=torch.int64)
        self.row[indices[good]] = torch.arange(int(good.sum()))

    def move_to(self, device: torch.device) -> None:
        """Moves the pixels to a device, unless they are too large for its memory."""
        if self.pixels.numel() <= ON_DEVICE_BELOW:
            self.pixels = self.pixels.to(device)


def _decode(
    source: Source,
    indices: torch.Tensor,
    size: tuple[int, int, int],
    interpolation: str,
    workers: int,
    progress: bool,
) -> tuple[torch.Tensor, dict[int, DataError]]:
    """Decodes images in threads.

    Returns:
        Pixels, uint8 (n, channels, height, width), and the errors of broken images by position in `indices`.
    """
    mode = image_mode(size[0])
    fit = create_transform(size, crop_pct=1.0, interpolation=interpolation, use_prefetcher=True)
    pixels = torch.empty(len(indices), *size, dtype=torch.uint8)
    errors: dict[int, DataError] = {}

    def read(chunk: range) -> int:
        images = source.images(indices[chunk.start : chunk.stop].tolist(), mode)
        for at, image in zip(chunk, images, strict=True):
            if isinstance(image, DataError):
                errors[at] = image
            else:
                pixels[at] = to_pixels(image, size, fit)
        return len(chunk)

    chunks = [range(at, min(at + CHUNK, len(indices))) for at in range(0, len(indices), CHUNK)]
    show = progress and len(indices) >= SHOW_PROGRESS_ABOVE  # and on a terminal: tqdm's disable=None
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        tqdm(desc='decoding', total=len(indices), leave=False, disable=None if show else True) as bar,
    ):
        for done in pool.map(read, chunks):  # decoders release the interpreter's lock
            bar.update(done)
    return pixels, errors


def to_pixels(image: Image.Image, size: tuple[int, int, int], fit: Callable) -> torch.Tensor:
    """Converts a decoded image to uint8 (channels, height, width), with `fit` if it is of another size."""
    if image.size != (size[2], size[1]):
        return fit(image)
    return torch.from_numpy(np.array(image)).view(size[1], size[2], -1).permute(2, 0, 1)
