"""From subsets of the data to their loaders."""

from dataclasses import replace
from typing import Mapping, Optional, Sequence

import torch

from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.data.datasets.base import Source, Subset, image_mode
from timm_alfa.data.loaders.base import Loader, LoaderSpec
from timm_alfa.data.loaders.image_cache import ImageCache
from timm_alfa.data.loaders.in_memory import MemoryLoader
from timm_alfa.data.loaders.workers import WorkerLoader
from timm_alfa.errors import ConfigError


def loader_spec(data: DataConfig, aug: AugConfig, config: Mapping, num_classes: int, **kwargs) -> LoaderSpec:
    """Returns the specification of a loader from the options and timm's data config.

    Raises:
        DataError: Images do not have as many channels as the model takes.
    """
    channels = config['input_size'][0]
    image_mode(channels)
    return LoaderSpec(
        batch_size=data.batch_size,
        input_size=tuple(config['input_size']),
        mean=per_channel(config['mean'], channels),
        std=per_channel(config['std'], channels),
        num_classes=num_classes,
        aug=aug,
        interpolation=config.get('interpolation', 'bicubic'),
        crop_pct=config.get('crop_pct'),
        crop_mode=config.get('crop_mode'),
        workers=data.workers,
        pin_mem=data.pin_mem,
        skip_corrupt=data.skip_corrupt,
        balanced=data.balanced_sampling,
        **kwargs,
    )


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Returns one value per channel: timm keeps the pretrained model's three even if a model takes gray images."""
    values = tuple(values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def check_cutmix(aug: AugConfig, side: int) -> None:
    """Checks that timm can draw the side of a cutmix box: between two integers that differ.

    Raises:
        ConfigError: It cannot.
    """
    low, high = aug.cutmix_minmax or (0, 1)
    if int(side * low) >= int(side * high):
        raise ConfigError(f'--cutmix-minmax {low} {high} leaves no choice at {side} pixels: use a wider range.')


def create_loaders(
    subsets: Sequence[Subset],
    spec: LoaderSpec,
    eval_batch_size: int,
    loader: str,
    size: tuple[int, int, int],
    same_size: bool,
    shared: Optional[dict] = None,
) -> list[Loader]:
    """Creates a loader per subset; subsets of one source share its decoded images.

    Args:
        subsets: Of one or more sources.
        spec: Of the training loader.
        eval_batch_size: Batch size of the other loaders.
        loader: 'memory' or 'timm'.
        size: Channels, height and width of the images as stored.
        same_size: Whether all images have that size.
        shared: Image caches of other loaders of the same data, by what they hold; takes those that are made.
    """
    made: list[Loader] = []
    caches: dict[int, ImageCache] = {}
    for subset in subsets:
        own = spec if subset.train else replace(spec, batch_size=eval_batch_size)
        if loader == 'timm':
            made.append(WorkerLoader(subset, own))
            continue
        key = id(subset.source)
        if key not in caches:
            cached_size = _cached_size(size, same_size, spec.input_size)
            caches[key] = _cache(subset.source, subsets, spec, cached_size, {} if shared is None else shared)
        made.append(MemoryLoader(subset, own, caches[key]))
    return made


def _cache(
    source: Source,
    subsets: Sequence[Subset],
    spec: LoaderSpec,
    size: tuple[int, int, int],
    shared: dict,
) -> ImageCache:
    """Decodes the images of a source that any subset needs, unless `shared` has them."""
    needed = [subset.indices for subset in subsets if subset.source is source]
    indices = torch.cat(needed).sort().values
    key = (source.split, size, spec.interpolation, indices.numpy().tobytes())
    if key not in shared:
        shared[key] = ImageCache(
            source,
            indices,
            size,
            spec.interpolation,
            workers=spec.workers,
            skip_corrupt=spec.skip_corrupt,
            progress=spec.rank == 0,
        )
    return shared[key]


def _cached_size(
    stored: tuple[int, int, int],
    same_size: bool,
    wanted: tuple[int, int, int],
) -> tuple[int, int, int]:
    """Returns channels, height and width to decode to.

    Images stay as stored if all have one size, of the model's aspect and no larger than its input: they are enlarged
    after augmentation. Otherwise they are decoded to the size the model takes.
    """
    same_aspect = stored[1] * wanted[2] == stored[2] * wanted[1]
    keep = same_size and same_aspect and stored[1] <= wanted[1]
    return (wanted[0], *stored[1:]) if keep else wanted
