"""What can be known of the data before a model is built, and every check that needs no work."""

import hashlib
import warnings
from dataclasses import dataclass
from typing import Iterable, Iterator, Optional

import torch

from timm_alfa.data.checks import TIMM_ONLY, changed, no_effect, pair_errors
from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.data.datasets.base import Source, Subset, check_labels
from timm_alfa.data.datasets.registry import KINDS, dataset_kind, find_split, open_split, require_split, title
from timm_alfa.data.datasets.split_names import is_test_name
from timm_alfa.data.loaders import sampling
from timm_alfa.errors import AlfaWarning, ConfigError, DataError, one_of

SMALL_SIDE = 64  # pixels; images up to this size are worth keeping in memory
MEMORY_LIMIT = 4 * 2**30  # bytes
PROBES = 16  # images that are read to learn whether all have one size


@dataclass(frozen=True)
class DataInfo:
    """Subsets of the data and what is known of them. Counts include corrupt images.

    Attributes:
        kind: Key of `KINDS`.
        name: What messages call the data.
        num_classes: Number of classes.
        class_names: In the order of the labels; empty if the data names no classes.
        image_size: Channels, height and width of the first training image as stored.
        same_size: Whether all images that were read have that size.
        loader: 'memory' or 'timm'.
        train: Images to train on.
        val: Images to choose the best checkpoint on.
        test: Images to score once at the end, or None.
        unused: Labelled training images that are neither trained nor validated on, to score once at the end, or None.
        train_split: Split of the training images.
        val_split: Split, or fraction of a split, of the validation images.
        test_split: Split of the test images, or None.
        notes: Lines worth showing to the user.
    """

    kind: str
    name: str
    num_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int, int]
    same_size: bool
    loader: str
    train: Subset
    val: Subset
    test: Optional[Subset]
    train_split: str
    val_split: str
    test_split: Optional[str]
    notes: tuple[str, ...] = ()
    unused: Optional[Subset] = None

    @property
    def train_images(self) -> int:
        return len(self.train)

    @property
    def val_images(self) -> int:
        return len(self.val)

    @property
    def test_images(self) -> Optional[int]:
        return None if self.test is None else len(self.test)

    @property
    def labels_sha256(self) -> str:
        """Hash of all labels in their order: copies of a dataset that differ in it give a seed other images."""
        digest = hashlib.sha256()
        seen: list[Source] = []
        for subset in (self.train, self.val, self.test):
            if subset is not None and not any(subset.source is source for source in seen):
                seen.append(subset.source)
                digest.update(subset.source.targets.numpy().astype('<i8').tobytes())
        return digest.hexdigest()

    @property
    def description(self) -> str:
        """One line for the user."""
        test = 'none' if self.test is None else f'{len(self.test)} ({self.test_split})'
        unused = '' if self.unused is None else f' and {len(self.unused)} unused ones ({self.train_split})'
        return (
            f'{self.name}: {self.num_classes} classes, {len(self.train)} images to train on ({self.train_split}), '
            f'{len(self.val)} to choose the best checkpoint on ({self.val_split}), {test}{unused} to test it on at the '
            f'end; {self.loader} loader'
        )


def inspect_data(data: DataConfig, aug: Optional[AugConfig] = None, *, seed: int = 0) -> DataInfo:
    """Opens the data, checks everything that can be checked before work starts, and reads a few images.

    Raises:
        ConfigError: Options that exclude each other.
        DataError: The dataset, a split, a column, a folder, a label or an image that was read cannot be used.
    """
    aug = aug or AugConfig()
    errors = list(pair_errors(data, aug))
    if errors:
        raise ConfigError(errors)

    # splits
    kind = dataset_kind(data)
    train_split, val_split = _split_names(data, kind)
    source = open_split(kind, data, train_split)
    held_out = open_split(kind, data, val_split, source.class_names) if val_split is not None else None
    train, val, test = _subsets(data, source, held_out, seed)
    subsets = [subset for subset in (train, val, test) if subset is not None]
    unused = _unused(source, subsets, val_split == train_split) if data.score_unused else None

    # labels
    num_classes = count_classes(data, source)
    for subset in [*subsets, unused] if unused is not None else subsets:
        check_labels(subset.source, subset.indices, num_classes)

    # images
    size, same_size = read_sizes(train, data.skip_corrupt)
    loader = choose_loader(data, aug, sum(map(len, subsets)), size, same_size)
    for line in no_effect(data, aug, kind, loader):
        warnings.warn(line, AlfaWarning, stacklevel=2)
    return DataInfo(
        kind=kind,
        name=title(data),
        num_classes=num_classes,
        class_names=source.class_names,
        image_size=size,
        same_size=same_size,
        loader=loader,
        train=train,
        val=val,
        test=test,
        train_split=train_split,
        val_split=f'{data.val_fraction:g} of {train_split}' if data.val_fraction else val.source.split,
        test_split=val_split if test is not None else None,
        notes=tuple(_notes(data, train_split, val_split)),
        unused=unused,
    )


def _split_names(data: DataConfig, kind: str) -> tuple[str, Optional[str]]:
    """Returns the training split, and the one to validate or test on: None if there is none and none is needed."""
    known = KINDS[kind].splits(data)
    train = require_split(kind, data.train_split, known, '--train-split')
    val = find_split(kind, data.val_split, known)
    if val is None and (not data.val_fraction or changed(data, ['val_split'])):
        hint = '' if data.val_fraction else ' Or use a fraction of the training split: --val-fraction 0.1.'
        raise DataError(one_of('split --val-split', data.val_split, known) + hint)
    return train, val


def _notes(data: DataConfig, train: str, val: Optional[str]) -> Iterator[str]:
    """Yields what the user should know about the splits."""
    if val is None:
        yield f"there is no split '{data.val_split}': no test score at the end."
    elif val == train:
        yield f"training and {'test' if data.val_fraction else 'validation'} images come from the same split '{val}'."
    elif is_test_name(val) and not data.val_fraction:
        yield f"the best checkpoint is chosen on the split '{val}'; --val-fraction 0.1 keeps it for a score at the end."


def _subsets(
    data: DataConfig,
    source: Source,
    held_out: Optional[Source],
    seed: int,
) -> tuple[Subset, Subset, Optional[Subset]]:
    """Returns the images to train on, to validate on and to test on.

    Args:
        data: `val_fraction` and `train_subset` have an effect.
        source: The training split.
        held_out: The split to validate on, or with `val_fraction` to test on.
        seed: Of the random choices.

    Raises:
        DataError: There are too few images.
    """
    for opened in (source, held_out):
        if opened is not None and not len(opened):
            raise DataError(f"split '{opened.split}' has no images.")

    # validation and test
    kept = torch.arange(len(source))
    held = Subset(held_out, torch.arange(len(held_out))) if held_out is not None else None
    val: Subset
    test: Optional[Subset]
    if held is None or data.val_fraction:
        kept, chosen = sampling.random_split(len(source), data.val_fraction, seed)
        val, test = Subset(source, chosen), held
    else:
        val, test = held, None

    # training
    needed = data.train_subset or 1
    if len(kept) < needed:
        raise DataError(f'{len(kept)} images to train on: fewer than --train-subset {needed}.')
    if data.train_subset is not None:
        kept = sampling.random_subset(kept, data.train_subset, seed)
    return Subset(source, kept, train=True), val, test


def _unused(source: Source, subsets: Iterable[Subset], one_split: bool) -> Subset:
    """Returns the images of the training split that no subset holds.

    Args:
        source: The training split.
        subsets: Images to train on, to validate on and to test on.
        one_split: Whether images to validate or test on are the training split, opened again.

    Raises:
        DataError: There are none.
    """
    unused = torch.full((len(source),), not one_split)
    for subset in subsets:
        if subset.source is source:
            unused[subset.indices] = False
    if not unused.any():
        raise DataError(
            f"--score-unused: no image of split '{source.split}' is left, all are trained, validated or tested on. "
            'Lower --train-subset, or leave --score-unused out.'
        )
    return Subset(source, unused.nonzero().flatten())


def count_classes(data: DataConfig, source: Source) -> int:
    """Returns the number of classes: as given, as the data names them, or one more than the largest label."""
    return data.num_classes or len(source.class_names) or int(source.targets.max()) + 1


def read_sizes(subset: Subset, skip_corrupt: bool) -> tuple[tuple[int, int, int], bool]:
    """Reads a few images, evenly spread.

    Returns:
        Channels, height and width of the first one, and whether the others have the same height and width.

    Raises:
        DataError: One cannot be read, or with `skip_corrupt` none can.
    """
    sizes, broken = [], None
    count = min(PROBES, len(subset))
    for at in torch.linspace(0, len(subset) - 1, count).long().tolist():
        try:
            sizes.append(subset.source.size(int(subset.indices[at])))
        except DataError as error:
            if not skip_corrupt:
                raise
            broken = error
    if not sizes:
        raise DataError(f'none of {count} images can be read; the last: {broken}')
    return sizes[0], len({size[1:] for size in sizes}) == 1


def choose_loader(data: DataConfig, aug: AugConfig, images: int, size: tuple[int, int, int], same_size: bool) -> str:
    """Returns `data.loader`; for 'auto', 'memory' if images are small, of one size, and no option needs timm."""
    if data.loader != 'auto':
        return data.loader
    needs_timm = not aug.no_aug and changed(aug, TIMM_ONLY)
    _, height, width = size
    small = same_size and max(height, width) <= SMALL_SIDE and images * 3 * height * width <= MEMORY_LIMIT
    return 'memory' if small and not needs_timm else 'timm'
