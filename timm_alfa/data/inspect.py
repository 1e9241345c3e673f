"""What can be known of the data before a model is built, and every check that needs no work."""

import warnings
from dataclasses import dataclass

import torch

from timm_alfa.data.config import TIMM_ONLY, AugConfig, DataConfig, given, idle_options, pair_errors
from timm_alfa.data.datasets.base import Part, Source, check_labels
from timm_alfa.data.datasets.registry import KINDS, dataset_kind, find_split, require_split
from timm_alfa.data.loaders import sampling
from timm_alfa.errors import AlfaWarning, ConfigError, DataError, one_of

SMALL_SIDE = 64  # pixels; images up to this size are worth keeping in memory
MEMORY_LIMIT = 4 * 2**30  # bytes
PROBES = 16  # images looked at to learn whether all have one size


@dataclass(frozen=True)
class DataInfo:
    """Parts of the data and what is known of them. Counts are before corrupt images are left out.

    Attributes:
        kind: 'digits', 'hfds', 'torch', 'wds' or 'folder'.
        image_size: Channels, height and width of the first training image as stored.
        same_size: Whether all images looked at have that size.
        loader: 'memory' or 'timm'.
        val: Images to choose the best checkpoint on.
        test: Images to score once at the end, or None.
        notes: Lines worth telling the user.
    """

    kind: str
    name: str
    num_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int, int]
    same_size: bool
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

    @property
    def description(self) -> str:
        """One line for the user."""
        test = 'none' if self.test is None else f'{len(self.test)} ({self.test_split})'
        return (
            f'{self.name}: {self.num_classes} classes, {len(self.train)} images to train on ({self.train_split}), '
            f'{len(self.val)} to choose the best checkpoint on ({self.val_split}), {test} to test it on at the '
            f'end; {self.loader} loader'
        )


def inspect_data(data: DataConfig, aug: AugConfig | None = None, *, seed: int = 0) -> DataInfo:
    """Opens the data, checks all that can be checked before work starts, and reads a few images.

    Raises:
        ConfigError: Options that exclude each other.
        DataError: The data set, a split, a column, a folder, a label or an image looked at cannot be used.
    """
    aug = aug or AugConfig()
    errors = list(pair_errors(data, aug))
    if errors:
        raise ConfigError(errors)
    kind = dataset_kind(data)
    train_split, val_split = _split_names(data, kind)
    source = KINDS[kind].open(data, train_split, None)
    held_out = KINDS[kind].open(data, val_split, source) if val_split is not None else None
    train, val, test = _parts(data, source, held_out, seed)
    parts = [part for part in (train, val, test) if part is not None]
    num_classes = count_classes(data, source)
    for part in parts:
        check_labels(part.source, part.indices, num_classes)
    first, same = probe(train, data.skip_corrupt)
    loader = choose_loader(data, aug, sum(map(len, parts)), first, same)
    for line in idle_options(data, aug, kind, loader):
        warnings.warn(line, AlfaWarning, stacklevel=2)
    return DataInfo(
        kind=kind,
        name=_name(data, kind),
        num_classes=num_classes,
        class_names=source.class_names,
        image_size=first,
        same_size=same,
        loader=loader,
        train=train,
        val=val,
        test=test,
        train_split=train_split,
        val_split=f'{data.val_fraction:g} of {train_split}' if data.val_fraction else val_split,
        test_split=val_split if test is not None else None,
        notes=tuple(_notes(data, train_split, val_split)),
    )


def _name(data: DataConfig, kind: str) -> str:
    return {'digits': "scikit-learn's digits (embedded)", 'folder': data.data_dir}.get(kind, data.dataset)


def _split_names(data: DataConfig, kind: str) -> tuple[str, str | None]:
    """The training split, and the one to validate or test on: None where there is none and none is needed."""
    known = KINDS[kind].splits(data)
    train = require_split(kind, data.train_split, known, '--train-split')
    val = find_split(kind, data.val_split, known)
    if val is None and (not data.val_fraction or given(data, ['val_split'])):
        hint = '' if data.val_fraction else ' Or take a part of the training split: --val-fraction 0.1.'
        raise DataError(one_of('split --val-split', data.val_split, known) + hint)
    return train, val


def _notes(data: DataConfig, train: str, val: str | None):
    if val is None:
        yield f"there is no split '{data.val_split}': no test score at the end."
    elif val == train:
        yield f"training and {'test' if data.val_fraction else 'validation'} images come from the same split '{val}'."
    elif val == 'test' and not data.val_fraction:
        yield "the best checkpoint is chosen on the split 'test'; --val-fraction 0.1 keeps it for a score at the end."


def _parts(data: DataConfig, source: Source, held_out: Source | None, seed: int):
    """Training, validation and test part (or None)."""
    for opened in (source, held_out):
        if opened is not None and not len(opened):
            raise DataError(f"split '{opened.split}' has no images.")
    held = Part(held_out, torch.arange(len(held_out))) if held_out is not None else None
    stay = torch.arange(len(source))
    val, test = held, None
    if data.val_fraction:
        stay, chosen = sampling.random_split(len(source), data.val_fraction, seed)
        val, test = Part(source, chosen), held
    if len(stay) < (data.train_subset or 1):
        raise DataError(f'{len(stay)} images to train on: fewer than --train-subset {data.train_subset or 1}.')
    if data.train_subset is not None:
        stay = sampling.random_subset(stay, data.train_subset, seed)
    return Part(source, stay, train=True), val, test


def count_classes(data: DataConfig, source: Source) -> int:
    """As given, as the data names them, or one more than the largest label."""
    return data.num_classes or len(source.class_names) or int(source.targets.max()) + 1


def probe(part: Part, skip_corrupt: bool) -> tuple[tuple[int, int, int], bool]:
    """The size of the first image, and whether a few others, evenly spread, have it too."""
    sizes, fault = [], None
    for at in torch.linspace(0, len(part) - 1, min(PROBES, len(part))).long().tolist():
        try:
            sizes.append(part.source.size(int(part.indices[at])))
        except DataError as error:
            if not skip_corrupt:
                raise
            fault = error
    if not sizes:
        raise DataError(f'none of {min(PROBES, len(part))} images can be read; the last: {fault}')
    return sizes[0], len({size[1:] for size in sizes}) == 1


def choose_loader(data: DataConfig, aug: AugConfig, images: int, size: tuple[int, int, int], same: bool) -> str:
    """`data.loader`, or for 'auto' memory where images are small and of one size and no option needs timm."""
    if data.loader != 'auto':
        return data.loader
    needs_timm = not aug.no_aug and given(aug, TIMM_ONLY)
    small = same and max(size[1:]) <= SMALL_SIDE and images * 3 * size[1] * size[2] <= MEMORY_LIMIT
    return 'memory' if small and not needs_timm else 'timm'
