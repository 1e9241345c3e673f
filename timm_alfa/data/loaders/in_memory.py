"""Small images: decoded once into one uint8 tensor, augmented in batches on the device."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize
from tqdm import tqdm

from timm_alfa.data.datasets.base import Part, Source, image_mode
from timm_alfa.data.loaders import sampling
from timm_alfa.data.loaders.base import Loader, LoaderSpec
from timm_alfa.errors import ConfigError, DataError, one_of

CHUNK = 256  # images a thread decodes at a time
SHOW_PROGRESS_ABOVE = 20_000
RESIZING = {  # torch's ways to what PIL gives for these names
    'bilinear': InterpolationMode.BILINEAR,
    'bicubic': InterpolationMode.BICUBIC,
    'nearest': InterpolationMode.NEAREST_EXACT,
}
ON_DEVICE_BELOW = 2 * 2**30  # bytes of a store kept in a GPU's memory


class Store:
    """All images of a source that somebody needs, decoded.

    Attributes:
        pixels: uint8 (n, channels, height, width).
        row: Row of each image of the source, (len(source),) int64; -1 where it is not held.
        corrupt: Indices of images that could not be read.
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
        mode = image_mode(size[0])
        fit = create_transform(size, crop_pct=1.0, interpolation=interpolation, use_prefetcher=True)
        pixels = torch.empty(len(indices), *size, dtype=torch.uint8)
        faults: dict[int, DataError] = {}

        def read(chunk: range) -> int:
            images = source.images(indices[chunk.start : chunk.stop].tolist(), mode)
            for at, image in zip(chunk, images, strict=True):
                if isinstance(image, DataError):
                    faults[at] = image
                else:
                    pixels[at] = to_pixels(image, size, fit)
            return len(chunk)

        chunks = [range(at, min(at + CHUNK, len(indices))) for at in range(0, len(indices), CHUNK)]
        show = progress and len(indices) >= SHOW_PROGRESS_ABOVE
        with (
            ThreadPoolExecutor(max(1, workers)) as pool,
            tqdm(desc='decoding', total=len(indices), leave=False, disable=not show) as bar,
        ):
            for done in pool.map(read, chunks):  # decoders release the interpreter's lock
                bar.update(done)
        if faults and not skip_corrupt:
            first = faults[min(faults)]
            raise DataError(str(first) + (f' ({len(faults)} such images.)' if len(faults) > 1 else '')) from first
        good = torch.tensor([at not in faults for at in range(len(indices))], dtype=torch.bool)
        self.corrupt = {int(indices[at]) for at in faults}
        self.pixels = pixels if not faults else pixels[good]
        self.row = torch.full((len(source),), -1, dtype=torch.int64)
        self.row[indices[good]] = torch.arange(int(good.sum()))


def to_pixels(image: Image.Image, size: tuple[int, int, int], fit: Callable) -> torch.Tensor:
    """A decoded image as uint8 (channels, height, width), through `fit` where it is of another size."""
    if image.size != (size[2], size[1]):
        return fit(image)
    return torch.from_numpy(np.array(image)).view(size[1], size[2], -1).permute(2, 0, 1)


def crop_flip(
    pixels: torch.Tensor,
    draws: torch.Tensor,
    padding: int,
    hflip: float = 0.0,
    vflip: float = 0.0,
) -> torch.Tensor:
    """Zero padding and a random crop of the old size, then random flips, each image by its own draws.

    Args:
        pixels: (n, channels, height, width), any type.
        draws: Uniform in [0, 1), (n, 4): row and column of the crop, horizontal and vertical flip. On the CPU.
        padding: Pixels on every side.

    Returns:
        A new tensor like `pixels`.
    """
    n, _, height, width = pixels.shape
    if padding:
        corner = (draws[:, :2] * (2 * padding + 1)).long().clamp_(max=2 * padding).to(pixels.device)
        windows = F.pad(pixels, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        pixels = windows[torch.arange(n, device=pixels.device), :, corner[:, 0], corner[:, 1]]
    for prob, column, dim in ((hflip, 2, 3), (vflip, 3, 2)):
        if prob > 0:
            turn = (draws[:, column] < prob).to(pixels.device).view(-1, 1, 1, 1)
            pixels = torch.where(turn, pixels.flip(dim), pixels)
    return pixels


class MemoryLoader(Loader):
    """Batches of a store. Augmentation follows from the seed, the epoch and an image's place in the epoch's order, so
    that it differs between ranks and does not depend on their number. Images are evaluated whole: `crop_pct` is 1."""

    name = 'memory'

    def __init__(self, part: Part, spec: LoaderSpec, store: Store):
        held = part.indices[store.row[part.indices] >= 0]
        super().__init__(Part(part.source, held, part.train), spec)
        self.skipped_indices = store.corrupt & set(part.indices.tolist())
        if not len(held):
            raise DataError(f"no image of split '{part.source.split}' can be read.")
        on_device = spec.device.type != 'cpu' and store.pixels.numel() <= ON_DEVICE_BELOW
        if on_device:
            store.pixels = store.pixels.to(spec.device)
        self.pixels, self.rows = store.pixels, store.row[held]
        self.targets = part.source.targets[held]
        self.resizes = tuple(store.pixels.shape[2:]) != tuple(spec.input_size[1:])
        if self.resizes and spec.interpolation not in RESIZING:
            raise ConfigError(one_of('--interpolation of the memory loader', spec.interpolation, list(RESIZING)))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch, places = self.epoch, self.order()
        draws = self._draws(epoch)
        for step, at in enumerate(self.positions(), self.start_batch):
            chosen = places[at]
            self.last_indices = self.part.indices[chosen]
            input = self._input(self.rows[chosen], None if draws is None else draws[at])
            target = self.targets[chosen].to(self.spec.device)
            yield self._finish(input, target, epoch, step) if self._finish else (input, target)

    def _draws(self, epoch: int) -> torch.Tensor | None:
        if not self.part.train or self.spec.aug.no_aug:
            return None
        return torch.rand(self.images, 4, generator=sampling.stream('crop', self.spec.seed, epoch))

    def _input(self, rows: torch.Tensor, draws: torch.Tensor | None) -> torch.Tensor:
        aug, spec = self.spec.aug, self.spec
        pixels = self.pixels[rows.to(self.pixels.device)].to(spec.device)
        if draws is not None:
            pixels = crop_flip(pixels, draws, aug.crop_padding, aug.hflip, aug.vflip)
        if self.resizes:
            pixels = resize(pixels, list(spec.input_size[1:]), RESIZING[spec.interpolation], antialias=True)
        return self.normalise(pixels)
