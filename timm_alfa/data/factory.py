"""From options to loaders."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.data.datasets.base import Part, check_labels, image_mode
from timm_alfa.data.datasets.registry import KINDS, dataset_kind, find_split, require_split
from timm_alfa.data.inspect import DataInfo, choose_loader, count_classes, inspect_data, probe
from timm_alfa.data.loaders.base import Loader, LoaderSpec
from timm_alfa.data.loaders.in_memory import MemoryLoader, Store
from timm_alfa.data.loaders.workers import WorkerLoader
from timm_alfa.errors import ConfigError, DataError


@dataclass(frozen=True)
class Data:
    """Loaders for a run; every attribute not given here is that of `info`.

    Attributes:
        test: To be read once, at the end; None unless a validation set was split off the training set.
    """

    train: Loader
    val: Loader
    test: Loader | None
    info: DataInfo

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'info':
            raise AttributeError(name)
        return getattr(self.info, name)

    @property
    def train_images(self) -> int:
        return self.train.images

    @property
    def val_images(self) -> int:
        return self.val.images

    @property
    def test_images(self) -> int | None:
        return None if self.test is None else self.test.images

    def close(self) -> None:
        """Ends worker processes; the loaders are of no use afterwards."""
        for loader in (self.train, self.val, self.test):
            if loader is not None:
                loader.close()


def _spec(data: DataConfig, aug: AugConfig, config: Mapping, num_classes: int, **kwargs) -> LoaderSpec:
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
        **kwargs,
    )


def per_channel(values, channels: int) -> tuple[float, ...]:
    """One value a channel: timm keeps the three of the pretrained model also where a model takes grey images."""
    values = tuple(values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _check_cutmix(aug: AugConfig, side: int) -> None:
    """timm draws the box's side between two whole numbers of pixels, which must differ."""
    low, high = aug.cutmix_minmax or (0, 1)
    if int(side * low) >= int(side * high):
        raise ConfigError(f'--cutmix-minmax {low} {high} leaves no choice at {side} pixels: give a wider range.')


def _store_size(stored: tuple[int, int, int], same: bool, wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels, height and width to decode to: as stored where all agree, or else as the model takes them."""
    keeps = same and stored[1] * wanted[2] == stored[2] * wanted[1] and stored[1] <= wanted[1]
    return (wanted[0], *stored[1:]) if keeps else wanted


def _loaders(parts, spec: LoaderSpec, eval_batch: int, loader: str, size, same: bool) -> list[Loader | None]:
    """A loader a part; parts of one source share its decoded images."""
    made, stores = [], {}
    for part in parts:
        own = spec if part is None or part.train else replace(spec, batch_size=eval_batch)
        if part is None or loader == 'timm':
            made.append(None if part is None else WorkerLoader(part, own))
            continue
        if id(part.source) not in stores:
            needed = torch.cat([p.indices for p in parts if p is not None and p.source is part.source])
            stores[id(part.source)] = Store(
                part.source,
                needed.sort().values,
                _store_size(size, same, spec.input_size),
                spec.interpolation,
                workers=spec.workers,
                skip_corrupt=spec.skip_corrupt,
                progress=spec.rank == 0,
            )
        made.append(MemoryLoader(part, own, stores[id(part.source)]))
    return made


def create_data(
    data: DataConfig,
    aug: AugConfig | None = None,
    *,
    model_config: Mapping,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = 'cpu',
    channels_last: bool = False,
    info: DataInfo | None = None,
) -> Data:
    """Loaders for training, validation and, with `val_fraction`, the test split.

    Args:
        model_config: As timm's `resolve_model_data_config` gives it: input_size, mean, std, interpolation, crop_pct.
        seed: Of the order, the augmentation and the splits: the same on every rank.
        info: What `inspect_data` gave for the same options and seed, to open the data only once.

    Raises:
        ConfigError: Options that exclude each other.
        DataError: The data cannot be used, or with the memory loader, an image cannot be read.
    """
    aug = aug or AugConfig()
    info = info or inspect_data(data, aug, seed=seed)
    if len(info.train) < world_size:
        raise DataError(f'{len(info.train)} training images are too few for {world_size} processes.')
    spec = _spec(
        data,
        aug,
        model_config,
        info.num_classes,
        seed=seed,
        rank=rank,
        world_size=world_size,
        device=torch.device(device),
        channels_last=channels_last,
    )
    _check_cutmix(aug, min(spec.input_size[1:]))
    train, val, test = _loaders(
        (info.train, info.val, info.test),
        spec,
        data.validation_batch_size or data.batch_size,
        info.loader,
        info.image_size,
        info.same_size,
    )
    return Data(train, val, test, info)


def create_eval_loader(
    data: DataConfig,
    *,
    model_config: Mapping,
    split: str | None = None,
    num_classes: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = 'cpu',
    channels_last: bool = False,
) -> Loader:
    """A loader over one split, every image once over all ranks; its `part.source` has labels and class names.

    Args:
        split: Default: `data.val_split`.
        num_classes: Of the model: labels are checked against it.

    Raises:
        DataError: The data cannot be used.
    """
    kind = dataset_kind(data)
    known = KINDS[kind].splits(data)
    name = require_split(kind, split or data.val_split, known, '--split')
    source = KINDS[kind].open(data, name, None)
    train = find_split(kind, data.train_split, known)
    if kind == 'folder' and num_classes not in (None, len(source.class_names)) and train != name:
        # A split that lacks a class would number the others anew: the training split's numbers are the model's.
        if train is None and not data.class_map:
            raise DataError(
                f"split '{name}' has {len(source.class_names)} classes, the model {num_classes}, and there is no split "
                f"'{data.train_split}' to number them by: give --train-split or --class-map."
            )
        source = source if train is None else KINDS[kind].open(data, name, KINDS[kind].open(data, train, None))
    if not len(source):
        raise DataError(f"split '{name}' has no images.")
    num_classes = num_classes or count_classes(data, source)
    part = Part(source, torch.arange(len(source)))
    check_labels(source, part.indices, num_classes)
    size, same = probe(part, data.skip_corrupt)
    spec = _spec(
        data,
        AugConfig(),
        model_config,
        num_classes,
        rank=rank,
        world_size=world_size,
        device=torch.device(device),
        channels_last=channels_last,
    )
    loader = choose_loader(data, AugConfig(), len(part), size, same)
    return _loaders([part], spec, data.validation_batch_size or data.batch_size, loader, size, same)[0]
