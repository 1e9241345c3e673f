"""From options to loaders: look at the data first, then make what is needed of it."""
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from timm_alfa.data import digits, folder, hfds, order, torchsets
from timm_alfa.data.config import TIMM_ONLY, AugConfig, DataConfig, given, idle_options, pair_faults
from timm_alfa.data.loader import Loader, LoaderSpec
from timm_alfa.data.memory import MemoryLoader, Store, store_size
from timm_alfa.data.source import Part, Source, check_labels, image_mode, pick_split
from timm_alfa.data.worker import WorkerLoader
from timm_alfa.errors import AlfaWarning, ConfigError, DataError, one_of

SMALL_SIDE = 64  # pixels; images up to this size are worth keeping in memory
MEMORY_LIMIT = 4 * 2 ** 30  # bytes


@dataclass(frozen=True)
class Kind:
    """A kind of data set.

    Attributes:
        splits: Names of the splits there are.
        open: A split as a source; `first` is the training split where that was opened before, else None.
    """
    splits: Callable[[DataConfig], tuple[str, ...]]
    open: Callable[[DataConfig, str, Source | None], Source]


KINDS = {
    'digits': Kind(lambda data: digits.SPLITS, lambda data, split, first: digits.DigitsSource(split)),
    'hfds': Kind(hfds.splits, lambda data, split, first: hfds.HfdsSource(data, split)),
    'torch': Kind(torchsets.splits, lambda data, split, first: torchsets.TorchSource(data, split)),
    'folder': Kind(folder.splits, lambda data, split, first: folder.FolderSource(
        data, split, first.class_to_idx if first is not None else None)),
}
STREAMS = ('wds', 'tfds', 'hfids')


@dataclass(frozen=True)
class DataInfo:
    """What can be known of the data before a model is built.

    Attributes:
        image_size: Channels, height and width of the first training image as stored.
        loader: 'memory' or 'timm'.
        val_images: Images to choose the best checkpoint on. Counts are before corrupt images are left out.
        test_images: Images to score once at the end, or None.
        notes: Lines worth telling the user.
    """
    kind: str
    description: str
    num_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int, int]
    loader: str
    train: Part
    val: Part
    test: Part | None
    train_split: str
    val_split: str
    test_split: str | None
    notes: tuple[str, ...] = ()

    @property
    def train_images(self) -> int:
        return len(self.train)

    @property
    def val_images(self) -> int:
        return len(self.val)

    @property
    def test_images(self) -> int | None:
        return None if self.test is None else len(self.test)


@dataclass(frozen=True)
class Data:
    """Loaders for a run; every other attribute is that of `info`.

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
    def skipped(self) -> int:
        """Corrupt images left out so far."""
        return sum(loader.skipped for loader in (self.train, self.val, self.test) if loader is not None)

    def close(self) -> None:
        """Ends worker processes."""
        for loader in (self.train, self.val, self.test):
            if loader is not None:
                loader.close()


def dataset_kind(data: DataConfig) -> str:
    """The row of KINDS for what was asked.

    Raises:
        DataError: There is none.
    """
    prefix, slash, _ = data.dataset.partition('/')
    if slash and prefix.lower() in STREAMS:
        raise DataError(
            f"--dataset {data.dataset} is a stream: its order cannot be reproduced, so a run could not be resumed. "
            'Use hfds/NAME or an image folder by --data-dir.')
    if slash and prefix.lower() in ('hfds', 'torch'):
        return prefix.lower()
    if data.dataset in ('', 'folder') and (data.data_dir or data.dataset):
        return 'folder'
    if data.dataset in ('', 'digits'):
        return 'digits'
    names = ['digits', 'hfds/NAME', 'hfds/FOLDER', 'an image folder by --data-dir', *(
        f'torch/{name}' for name in torchsets.TORCH_NAMES)]
    raise DataError(one_of('data set', data.dataset, names))


def _choose_loader(data: DataConfig, aug: AugConfig, train: Part, others, first: tuple[int, int, int]) -> str:
    if data.loader != 'auto':
        return data.loader
    needs_timm = not aug.no_aug and given(aug, TIMM_ONLY)
    size = (len(train) + sum(map(len, others))) * 3 * first[1] * first[2]
    return 'memory' if not needs_timm and max(first[1:]) <= SMALL_SIDE and size <= MEMORY_LIMIT else 'timm'


def _split_or_fail(data: DataConfig, wanted: str, known, option: str) -> str:
    found = pick_split(wanted, known) or (wanted if hfds.base_split(wanted) in known else None)
    if found is None:
        raise DataError(one_of(f'split {option}', wanted, known))
    return found


def inspect_data(data: DataConfig, aug: AugConfig | None = None, *, seed: int = 0) -> DataInfo:
    """Opens the data, checks all that can be checked before work starts, and reads one image.

    Raises:
        ConfigError: Options that exclude each other.
        DataError: The data set, a split, a column, a folder, a label or the first image cannot be used.
    """
    aug = aug or AugConfig()
    faults = [*pair_faults(data, aug)]
    if faults:
        raise ConfigError(faults)
    kind = dataset_kind(data)
    known = KINDS[kind].splits(data)
    train_split = _split_or_fail(data, data.train_split, known, '--train-split')
    val_split = pick_split(data.val_split, known) or (
        data.val_split if hfds.base_split(data.val_split) in known else None)
    if val_split is None and not data.val_fraction:
        raise DataError(
            one_of('split --val-split', data.val_split, known) + ' Or split the training set: --val-fraction 0.1.')
    source = KINDS[kind].open(data, train_split, None)
    held_out = KINDS[kind].open(data, val_split, source) if val_split is not None else None
    parts, notes = _parts(data, source, held_out, seed)
    num_classes = data.num_classes or len(source.class_names) or int(source.targets.max()) + 1
    for part in parts:
        if part is not None:
            check_labels(part.source, part.indices, num_classes)
    train, val, test = parts
    first = source.image(int(train.indices[0]), 'RGB') if not data.skip_corrupt else _first_image(train)
    channels = 1 if kind == 'digits' or first.getextrema()[0] is None else 3
    size = (channels, first.height, first.width)
    loader = _choose_loader(data, aug, train, [p for p in (val, test) if p is not None], size)
    for line in idle_options(data, aug, kind, loader):
        warnings.warn(line, AlfaWarning, stacklevel=2)
    name = {'digits': "scikit-learn's digits (embedded)", 'folder': data.data_dir}.get(kind, data.dataset)
    return DataInfo(
        kind=kind,
        description=f'{name}: {num_classes} classes, {len(train)} images to train on, {len(val)} to validate on'
        + (f', {len(test)} to test on' if test is not None else '') + f' ({loader} loader)',
        num_classes=num_classes, class_names=source.class_names, image_size=size, loader=loader,
        train=train, val=val, test=test, train_split=train_split,
        val_split=f'{train_split} ({data.val_fraction:g})' if data.val_fraction else val_split,
        test_split=val_split if test is not None else None, notes=tuple(notes))


def _first_image(part: Part):
    """The first image that can be read."""
    for index in part.indices.tolist():
        try:
            return part.source.image(index, 'RGB')
        except DataError as error:
            fault = error
    raise DataError(f'no image can be read; the last: {fault}')


def _parts(data: DataConfig, source: Source, held_out: Source | None, seed: int):
    """Training, validation and test part (or None), and notes."""
    if not len(source) or (held_out is not None and not len(held_out)):
        raise DataError(f"split '{(source if not len(source) else held_out).split}' has no images.")
    notes = []
    test = Part(held_out, torch.arange(len(held_out))) if held_out is not None else None
    if data.val_fraction:
        stay, held = order.random_split(len(source), data.val_fraction, seed)
        val = Part(source, held)
        if not len(stay):
            raise DataError(f'--val-fraction {data.val_fraction:g} of {len(source)} images leaves none to train on.')
        if test is None:
            notes.append(f"there is no split '{data.val_split}': no test score at the end.")
    else:
        stay, val, test = torch.arange(len(source)), test, None
        if held_out.split == 'test':
            notes.append("the best checkpoint is chosen on the split 'test'; --val-fraction 0.1 would keep it apart.")
    if data.train_subset is not None:
        if data.train_subset > len(stay):
            raise DataError(f'--train-subset is {data.train_subset}: there are {len(stay)} training images.')
        stay = order.random_subset(stay, data.train_subset, seed)
    return (Part(source, stay, train=True), val, test), notes


def _spec(data: DataConfig, aug: AugConfig, config: Mapping, num_classes: int, **kwargs) -> LoaderSpec:
    return LoaderSpec(
        batch_size=data.batch_size, input_size=tuple(config['input_size']), mean=tuple(config['mean']),
        std=tuple(config['std']), num_classes=num_classes, aug=aug,
        interpolation=config.get('interpolation', 'bicubic'), crop_pct=config.get('crop_pct'), crop_mode=config.get('crop_mode'), workers=data.workers,
        pin_mem=data.pin_mem, skip_corrupt=data.skip_corrupt, **kwargs)


def _loaders(parts, spec: LoaderSpec, eval_batch: int, loader: str, first: tuple[int, int]) -> list[Loader | None]:
    """A loader a part; parts of one source share its decoded images."""
    image_mode(spec.input_size[0])
    made, stores = [], {}
    for part in parts:
        own = spec if part is None or part.train else replace(spec, batch_size=eval_batch)
        if part is None:
            made.append(None)
        elif loader == 'timm':
            made.append(WorkerLoader(part, own))
        else:
            if id(part.source) not in stores:
                needed = torch.cat([p.indices for p in parts if p is not None and p.source is part.source])
                stores[id(part.source)] = Store(
                    part.source, needed.sort().values, store_size(first, spec.input_size, SMALL_SIDE),
                    workers=spec.workers, skip_corrupt=spec.skip_corrupt, progress=spec.rank == 0)
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
        data, aug, model_config, info.num_classes, seed=seed, rank=rank, world_size=world_size,
        device=torch.device(device), channels_last=channels_last)
    eval_batch = data.validation_batch_size or data.batch_size
    parts = (info.train, info.val, info.test)
    return Data(*_loaders(parts, spec, eval_batch, info.loader, info.image_size[1:]), info=info)


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
    name = _split_or_fail(data, split or data.val_split, known, '--split')
    source = KINDS[kind].open(data, name, None)
    train = pick_split(data.train_split, known)
    if kind == 'folder' and num_classes not in (None, len(source.class_names)) and train not in (None, name):
        # A split that lacks a class would number the others anew: the training split's numbers are the model's.
        source = KINDS[kind].open(data, name, KINDS[kind].open(data, train, None))
    num_classes = num_classes or data.num_classes or len(source.class_names) or int(source.targets.max()) + 1
    part = Part(source, torch.arange(len(source)))
    check_labels(source, part.indices, num_classes)
    first = _first_image(part) if data.skip_corrupt else source.image(0, 'RGB')
    size = (3, first.height, first.width)
    spec = _spec(
        data, AugConfig(), model_config, num_classes, rank=rank, world_size=world_size, device=torch.device(device),
        channels_last=channels_last)
    loader = _choose_loader(data, AugConfig(), part, [], size)
    return _loaders([part], spec, data.validation_batch_size or data.batch_size, loader, size[1:])[0]
