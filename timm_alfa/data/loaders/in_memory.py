"""Batches from an image cache, augmented on the device.

Everything random in an epoch is drawn on the host beforehand and moved to the device in one copy. After that a batch is
a function of the cache and of slices of that table: nothing waits for the device.
"""

from typing import Iterator, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from timm_alfa.data.datasets.base import Subset
from timm_alfa.data.loaders import sampling
from timm_alfa.data.loaders.base import Loader, LoaderSpec, send
from timm_alfa.data.loaders.image_cache import ImageCache
from timm_alfa.errors import ConfigError, DataError, one_of

RESIZING = {  # torch's equivalents of PIL's filters
    'bilinear': InterpolationMode.BILINEAR,
    'bicubic': InterpolationMode.BICUBIC,
    'nearest': InterpolationMode.NEAREST_EXACT,
}


class EpochTable(NamedTuple):
    """What the batches of an epoch are made of, in their order: a batch is a slice of each tensor.

    It takes 48 bytes per image on the device: 61 MB for the training images of ImageNet.

    Attributes:
        sizes: Images in each batch.
        indices: Into the source, (n,) int64, on the CPU.
        rows: Of the image cache, (n,) int64, on the cache's device.
        columns: Rows, labels and, with augmentation, draws as of `draw_crops`: (2 or 6, n) int64, on the device that
            trains.
    """

    sizes: list[int]
    indices: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    def batches(self) -> Iterator[slice]:
        """Yields where each batch is."""
        first = 0
        for size in self.sizes:
            yield slice(first, first + size)
            first += size


def split_columns(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Optional[torch.Tensor]]:
    """Splits columns of an `EpochTable` into rows, labels and draws; None without augmentation."""
    return columns[0], columns[1], columns[2:] if len(columns) > 2 else None


class MemoryLoader(Loader):
    """Batches of an image cache.

    Augmentation is a function of the seed, the epoch and an image's place in the epoch's order: it differs between
    ranks and does not depend on their number. Images are evaluated whole: `crop_pct` is 1.

    Args:
        subset: Images to load.
        spec: How batches are made.
        cache: Holds these images.

    Raises:
        DataError: None of the images can be read.
        ConfigError: Images have to be resized in a way that torch lacks.
    """

    name = 'memory'

    def __init__(self, subset: Subset, spec: LoaderSpec, cache: ImageCache):
        held = subset.indices[cache.row[subset.indices] >= 0]
        super().__init__(Subset(subset.source, held, subset.train), spec)
        self.skipped_indices = cache.corrupt & set(subset.indices.tolist())
        if not len(held):
            raise DataError(f"no image of split '{subset.source.split}' can be read.")
        self.resizes = tuple(cache.pixels.shape[2:]) != tuple(spec.input_size[1:])
        if self.resizes and spec.interpolation not in RESIZING:
            raise ConfigError(one_of('--interpolation of the memory loader', spec.interpolation, list(RESIZING)))
        cache.move_to(spec.device)
        self.pixels, self.rows = cache.pixels, cache.row[held]
        self.targets = subset.source.targets[held]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch, start_batch = self.epoch, self.start_batch
        table = self.epoch_table(epoch, start_batch)
        for step, batch in enumerate(table.batches(), start_batch):
            self.last_indices = table.indices[batch]
            _, target, draws = split_columns(table.columns[:, batch])
            input = self.make(table.rows[batch], draws)
            yield self.augment(input, target, epoch, step)

    def parts(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields for each batch its columns of the epoch's table; the batch itself, if it is not made of them alone.

        Mixing and erasing draw on the host, and pixels may lie in the host's memory.
        """
        if self.pixels.device.type != self.spec.device.type or (self._augment is not None and self._augment.has_effect):
            yield from self
            return
        table = self.epoch_table(self.epoch, self.start_batch)
        for batch in table.batches():
            self.last_indices = table.indices[batch]
            yield (table.columns[:, batch],)

    def assemble(self, *parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Makes a batch of what `parts` yields."""
        if len(parts) > 1:
            return super().assemble(*parts)
        rows, target, draws = split_columns(parts[0])
        return self.make(rows, draws), target

    def epoch_table(self, epoch: int, start_batch: int = 0) -> EpochTable:
        """Draws what is random in an epoch from `start_batch` on, and moves it to the device in one copy."""
        # on the host
        steps = list(self.positions(start_batch))
        positions = torch.cat([torch.empty(0, dtype=torch.int64), *steps])
        places = self.order(epoch)[positions]
        columns = torch.stack([self.rows[places], self.targets[places]])
        augmented = self.subset.train and not self.spec.aug.no_aug
        if augmented:
            columns = torch.cat([columns, self._draws(epoch, positions)])

        # on the device
        moved = send(columns, self.spec.device)
        return EpochTable(
            sizes=[len(step) for step in steps],
            indices=self.subset.indices[places],
            rows=moved[0] if self.pixels.device == moved.device else columns[0],
            columns=moved,
        )

    def make(self, rows: torch.Tensor, draws: Optional[torch.Tensor]) -> torch.Tensor:
        """Makes the images of a batch: a function of its arguments and the cache, without random numbers.

        Args:
            rows: Of the cache, (batch,), on its device.
            draws: As `draw_crops`, (4, batch); None for images as they are.

        Returns:
            Normalized float32, (batch, channels, height, width).
        """
        aug, spec = self.spec.aug, self.spec
        pixels = self.pixels[rows]
        if pixels.device.type != spec.device.type:
            pixels = send(pixels, spec.device)
        if draws is not None:
            pixels = crop(pixels, draws[:2], aug.crop_padding)
            pixels = flip(pixels, draws[2], 3) if aug.hflip > 0 else pixels
            pixels = flip(pixels, draws[3], 2) if aug.vflip > 0 else pixels
        if self.resizes:
            pixels = resize(pixels, list(spec.input_size[1:]), RESIZING[spec.interpolation], antialias=True)
        return self.normalize(pixels)

    def _draws(self, epoch: int, positions: torch.Tensor) -> torch.Tensor:
        """Returns the draws of positions in the epoch's order, (4, n)."""
        aug = self.spec.aug
        uniform = torch.rand(self.images, 4, generator=sampling.stream('crop', self.spec.seed, epoch))
        return draw_crops(uniform[positions], aug.crop_padding, aug.hflip, aug.vflip)


def draw_crops(uniform: torch.Tensor, padding: int, hflip: float, vflip: float) -> torch.Tensor:
    """Turns uniform random numbers into crops and flips.

    Args:
        uniform: In [0, 1), (n, 4).
        padding: Pixels on every side.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.

    Returns:
        int64 (4, n): top and left of the crop in the padded image, and 1 for a horizontal and a vertical flip.
    """
    top, left, horizontal, vertical = uniform.unbind(1)
    corners = (torch.stack([top, left]) * (2 * padding + 1)).long().clamp_(max=2 * padding)
    flips = torch.stack([horizontal < hflip, vertical < vflip]).long()
    return torch.cat([corners, flips])


def crop(pixels: torch.Tensor, corners: torch.Tensor, padding: int) -> torch.Tensor:
    """Pads images with zeros and crops each to its old size.

    Args:
        pixels: (n, channels, height, width), any type.
        corners: Top and left of each crop, (2, n) int64.
        padding: Pixels on every side.
    """
    if not padding:
        return pixels
    count, _, height, width = pixels.shape
    windows = F.pad(pixels, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=pixels.device), :, corners[0], corners[1]]


def flip(pixels: torch.Tensor, chosen: torch.Tensor, dim: int) -> torch.Tensor:
    """Flips some images of (n, channels, height, width) along a dimension: those where `chosen`, (n,), is not 0."""
    return torch.where(chosen.bool().view(-1, 1, 1, 1), pixels.flip(dim), pixels)
