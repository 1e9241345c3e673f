"""Image folders, one folder per class, with the classes and the order of timm's reader."""

import os
import unicodedata
from typing import TYPE_CHECKING, Iterable, Optional, Sequence

from timm_alfa.data.datasets.base import ordered_names
from timm_alfa.data.datasets.class_map import by_text, check_known, read_class_map
from timm_alfa.data.datasets.folder_scan import describe_others, list_folder, natural_key, scan_classes
from timm_alfa.data.datasets.image_paths import PathSource
from timm_alfa.data.datasets.split_names import is_split_name, simplified
from timm_alfa.errors import DataError, warn
from timm_alfa.utils.text import shorten_list

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig


def splits(data: 'DataConfig') -> tuple[str, ...]:
    """Returns the names of the splits."""
    return tuple(layout(data))


def layout(data: 'DataConfig') -> dict[str, str]:
    """Returns the folder of each split. Without folders named like splits, the root itself is the training split.

    Raises:
        DataError: A folder does not exist or cannot be read, or two are the same split.
    """
    root = os.path.expanduser(data.data_dir)
    inside = list_folder(root).inside
    requested = (data.train_split, data.val_split)
    named = [name for name in inside if name in requested or is_split_name(name)]
    # A class may be called 'train', the vehicle. A split has its own folders, or comes with its counterpart.
    if any(list_folder(os.path.join(root, name)).inside for name in named) or len(named) > 1:
        _check_distinct(named, root)
        return {name: os.path.join(root, name) for name in inside}
    return {'train': root}


class FolderSource(PathSource):
    """A split of an image folder.

    Args:
        data: `data_dir` and `class_map` have an effect.
        split: One of `splits`.
        names: Class names in the order of their numbers, those of the training split: a split that lacks a class would
            number the classes after it differently.

    Raises:
        DataError: The folder cannot be used, or has a class that `names` or the class map lacks.
    """

    def __init__(self, data: 'DataConfig', split: str, names: Optional[Sequence[str]] = None):
        root = layout(data)[split]
        found = scan_classes(root)
        if found.others:
            warn(f"split '{split}' leaves out files that are not images: {describe_others(found.others)}.")

        # classes
        class_map = by_text(read_class_map(data.class_map))
        if class_map:
            check_known(found.images, class_map, data.class_map)
        elif names is not None:
            _check_in_training(split, found.images, names)
        else:
            _warn_of_similar(found.images)
            names = sorted(found.images, key=natural_key)
        numbers = class_map or {name: number for number, name in enumerate(names or ())}

        # images, in the order of their paths
        samples = [(path, numbers[name]) for name, paths in found.images.items() for path in paths]
        samples.sort(key=lambda sample: natural_key(sample[0]))
        paths = [os.path.join(root, path) for path, _ in samples]
        super().__init__(split, paths, [target for _, target in samples], ordered_names(numbers))


def _check_in_training(split: str, found: Iterable[str], names: Sequence[str]) -> None:
    """Checks that the training split has all classes of another one.

    Raises:
        DataError: It does not.
    """
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(f"split '{split}' has classes the training split lacks: {', '.join(unknown[:5])}.")


def _check_distinct(names: list[str], root: str) -> None:
    """Checks that no two folders are the same split: only one of them would be read.

    Raises:
        DataError: Two are.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(simplified(name), name)
        if other != name:
            raise DataError(f"'{other}' and '{name}' in '{root}' are names of the same split: merge or rename them.")


def _warn_of_similar(names: Iterable[str]) -> None:
    """Warns of classes whose names look alike."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(unicodedata.normalize('NFC', name).casefold(), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            warn(f'{shorten_list([repr(name) for name in sorted(group)], 5)} are different classes: merge them if not.')
