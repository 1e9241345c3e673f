"""From options to the loaders of a run, or to the loader of one split."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable, Mapping, Optional, Sequence, Union

import torch

from timm_alfa.data.checks import no_effect_on
from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.data.datasets.base import Source, Subset, check_labels
from timm_alfa.data.datasets.registry import KINDS, dataset_kind, find_split, open_split, require_split
from timm_alfa.data.inspect import DataInfo, choose_loader, count_classes, inspect_data, read_sizes
from timm_alfa.data.loaders.base import Loader
from timm_alfa.data.loaders.create import check_cutmix, create_loaders, loader_spec
from timm_alfa.data.loaders.sampling import random_subset
from timm_alfa.data.loaders.workers import WorkerLoader
from timm_alfa.errors import DataError, warn
from timm_alfa.utils.text import shorten_list


@dataclass(frozen=True)
class Data:
    """Loaders of a run. Attributes that are not listed here are those of `info`.

    Attributes:
        train: Images to train on.
        val: Images to choose the best checkpoint on.
        test: To be read once, at the end; None unless a validation set was split off the training set.
        info: What is known of the data.
        create_loaders: Creates more loaders like these, one per subset.
    """

    train: Loader
    val: Loader
    test: Optional[Loader]
    info: DataInfo
    create_loaders: Callable[[Sequence[Subset]], list[Loader]]

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
    def test_images(self) -> Optional[int]:
        return None if self.test is None else self.test.images

    def create_loader(self, images: Subset) -> Loader:
        """Creates one more loader, such as that of `info.unused`: the memory loader decodes the images now."""
        return self.create_loaders([images])[0]

    def close(self) -> None:
        """Ends worker processes; the loaders cannot be used afterwards."""
        for loader in (self.train, self.val, self.test):
            if loader is not None:
                loader.close()


def create_data(
    data: DataConfig,
    aug: Optional[AugConfig] = None,
    *,
    model_config: Mapping,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: Union[torch.device, str] = 'cpu',
    channels_last: bool = False,
    info: Optional[DataInfo] = None,
    caches: Optional[dict] = None,
    decode: bool = True,
) -> Data:
    """Creates the loaders for training, validation and, with `val_fraction`, the test split.

    Args:
        data: Options of the data.
        aug: Options of the augmentation; None for the defaults.
        model_config: From timm's `resolve_model_data_config`: input_size, mean, std, interpolation, crop_pct.
        seed: Of the order, the augmentation and the splits: the same on every rank.
        rank: Which of the processes this is.
        world_size: Number of processes.
        device: Where batches are made.
        channels_last: Memory format of the batches.
        info: From `inspect_data` with the same options and seed, to open the data only once.
        caches: Decoded images of other runs in this process, which are used where the options of the data are the
            same; takes those that are decoded.
        decode: Whether the memory loader decodes all images now; if not, they are read when they are needed.

    Raises:
        ConfigError: Options that exclude each other.
        DataError: The data cannot be used, or with the memory loader, an image cannot be read.
    """
    aug = aug or AugConfig()
    info = info or inspect_data(data, aug, seed=seed)
    if len(info.train) < world_size:
        raise DataError(f'{len(info.train)} training images are too few for {world_size} processes.')

    spec = loader_spec(
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
    check_cutmix(aug, min(spec.input_size[1:]))
    create = partial(
        create_loaders,
        spec=spec,
        eval_batch_size=data.validation_batch_size or data.batch_size,
        loader=info.loader if decode else 'timm',
        size=info.image_size,
        same_size=info.same_size,
        shared=None if caches is None else caches.setdefault(repr(data), {}),
    )
    train, val, *test = create([subset for subset in (info.train, info.val, info.test) if subset is not None])
    return Data(train, val, test[0] if test else None, info, create)


def create_eval_loader(
    data: DataConfig,
    *,
    model_config: Mapping,
    split: Optional[str] = None,
    num_classes: Optional[int] = None,
    class_names: Optional[Sequence[str]] = None,
    rank: int = 0,
    world_size: int = 1,
    device: Union[torch.device, str] = 'cpu',
    channels_last: bool = False,
    most: Optional[int] = None,
) -> Loader:
    """Creates a loader of one split, every image once over all ranks.

    Its `subset.source` has the labels and the class names.

    Args:
        data: Options of the data.
        model_config: As in `create_data`.
        split: Default: `data.val_split`.
        num_classes: Of the model: labels are checked against it.
        class_names: Of the model, in the order of its outputs, if they are known: labels are numbered by them, or
            checked against them.
        rank: Which of the processes this is.
        world_size: Number of processes.
        device: Where batches are made.
        channels_last: Memory format of the batches.
        most: Take this many images at random, the same ones every time; None for all.

    Raises:
        DataError: The data cannot be used.
    """
    # images and labels
    source = _open_for_model(data, split or data.val_split, num_classes, class_names)
    if not len(source):
        raise DataError(f"split '{source.split}' has no images.")
    num_classes = num_classes or count_classes(data, source)
    indices = torch.arange(len(source))
    if most is not None:
        indices = random_subset(indices, min(most, len(source)), seed=0)
    subset = Subset(source, indices)
    check_labels(source, subset.indices, num_classes)

    # loader
    aug = AugConfig()
    size, same_size = read_sizes(subset, data.skip_corrupt)
    spec = loader_spec(
        data,
        aug,
        model_config,
        num_classes,
        rank=rank,
        world_size=world_size,
        device=torch.device(device),
        channels_last=channels_last,
    )
    loader = choose_loader(data, aug, len(subset), size, same_size)
    eval_batch_size = data.validation_batch_size or data.batch_size
    return create_loaders([subset], spec, eval_batch_size, loader, size, same_size)[0]


def create_image_loader(
    data: DataConfig,
    source: Source,
    *,
    model_config: Mapping,
    rank: int = 0,
    world_size: int = 1,
    device: Union[torch.device, str] = 'cpu',
    channels_last: bool = False,
) -> Loader:
    """Creates a loader of all images of a source by timm's transforms, every image once over all ranks.

    What becomes of an image does not depend on the others, as it may with the memory loader.

    Args:
        data: Batch size, workers and what becomes of corrupt images.
        source: Its labels have no effect.
        model_config: As in `create_data`.
        rank: Which of the processes this is.
        world_size: Number of processes.
        device: Where batches are made.
        channels_last: Memory format of the batches.
    """
    spec = loader_spec(
        data,
        AugConfig(),
        model_config,
        num_classes=1,
        rank=rank,
        world_size=world_size,
        device=torch.device(device),
        channels_last=channels_last,
    )
    if len(source) <= data.batch_size:
        spec = replace(spec, workers=0)  # starting them would take longer
    return WorkerLoader(Subset(source, torch.arange(len(source))), spec)


def _open_for_model(
    data: DataConfig,
    split: str,
    num_classes: Optional[int],
    class_names: Optional[Sequence[str]],
) -> Source:
    """Opens a split with the classes numbered as the model numbers them.

    Raises:
        DataError: The data cannot be used, or how the model numbers its classes is not known or differs.
    """
    kind = dataset_kind(data)
    for line in no_effect_on(data, kind):
        warn(line)
    known = KINDS[kind].splits(data)
    name = require_split(kind, split, known, '--split')
    source = open_split(kind, data, name)

    if class_names and set(source.class_names) <= set(class_names) and KINDS[kind].open_like and not data.class_map:
        return open_split(kind, data, name, class_names) if source.class_names != tuple(class_names) else source
    _check_order(source, class_names or ())

    # A split that lacks a class numbers the others differently: the training split's numbers are the model's.
    train = find_split(kind, data.train_split, known)
    numbered = num_classes in (None, len(source.class_names)) or train == name
    if KINDS[kind].open_like is None or numbered:
        return source
    if train is not None:
        return open_split(kind, data, name, open_split(kind, data, train).class_names)
    if not data.class_map:
        raise DataError(
            f"split '{name}' has {len(source.class_names)} classes, the model {num_classes}, and there is no split "
            f"'{data.train_split}' to number them by: use --train-split or --class-map."
        )
    return source


def _check_order(source: Source, class_names: Sequence[str]) -> None:
    """Checks that the data numbers its classes as the model does, as far as both have names.

    Raises:
        DataError: They are the same classes in another order.
    """
    own = source.class_names
    if not own or not class_names or own == tuple(class_names):
        return
    listed = f"{shorten_list(own, 5)}; the model's are {shorten_list(class_names, 5)}"
    if sorted(own) == sorted(class_names):
        raise DataError(
            f"split '{source.split}' has the model's classes in another order ({listed}): pass --class-map a file "
            "with the model's."
        )
    if len(own) == len(class_names):
        warn(f"the classes of split '{source.split}' are called {listed}: the order is taken to be the same.")
