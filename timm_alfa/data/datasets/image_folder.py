"""Image folders, one folder per class, through timm's reader; what that reader passes over silently is an error."""

import os
from typing import TYPE_CHECKING, Any, Optional

from PIL import Image
from timm.data import create_dataset
from timm.data.readers.img_extensions import get_img_extensions

from timm_alfa.data.datasets.base import EVAL_NAMES, TRAIN_NAMES, Source, ordered_names
from timm_alfa.data.datasets.image_files import read_image
from timm_alfa.errors import DataError, first_line

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig


def splits(data: 'DataConfig') -> tuple[str, ...]:
    """Returns the names of the splits."""
    return tuple(layout(data))


def layout(data: 'DataConfig') -> dict[str, str]:
    """Returns the folder of each split. Without folders named like splits, the root itself is the training split."""
    root = os.path.expanduser(data.data_dir)
    inside = _folders(root)
    split_names = (*TRAIN_NAMES, *EVAL_NAMES, data.train_split, data.val_split)
    named = [name for name in inside if name in split_names]
    # A class may be called 'train', the vehicle. A split has its own folders, or comes with its counterpart.
    if any(_folders(os.path.join(root, name)) for name in named) or len(named) > 1:
        return {name: os.path.join(root, name) for name in inside}
    return {'train': root}


class FolderSource(Source):
    """A split of an image folder.

    Args:
        data: `data_dir` and `class_map` have an effect.
        split: One of `splits`.
        first: The training split, whose classes number those of the other splits: a split that lacks a class would
            number the classes after it differently.

    Raises:
        DataError: The folder cannot be used, or has a class that `first` lacks.
    """

    def __init__(self, data: 'DataConfig', split: str, first: Optional['FolderSource'] = None):
        root = layout(data)[split]
        _check_classes(root)
        reader = _reader(root, data.class_map or None)
        if first is not None and reader.class_to_idx != first.class_to_idx:
            unknown = sorted(set(reader.class_to_idx) - set(first.class_to_idx))
            if unknown:
                raise DataError(f"split '{split}' has classes the training split lacks: {', '.join(unknown[:5])}.")
            reader = _reader(root, dict(first.class_to_idx))
        self.class_to_idx: dict[str, int] = reader.class_to_idx
        self.paths = [path for path, _ in reader.samples]
        super().__init__(split, [target for _, target in reader.samples], ordered_names(self.class_to_idx))

    def open(self, index: int) -> Image.Image:
        return read_image(self.paths[index])

    def label(self, index: int) -> str:
        return f"image '{self.paths[index]}'"


def _folders(path: str) -> list[str]:
    """Returns the names of the visible folders in a folder, sorted.

    Raises:
        DataError: It does not exist or cannot be read: `os.walk` would skip it silently.
    """
    if not os.path.exists(path):
        raise DataError(f"no folder '{path}' (from {os.getcwd()}): pass --data-dir a folder that exists.")
    if not os.path.isdir(path):
        raise DataError(f"'{path}' is not a folder: --data-dir takes a folder with one folder per class.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise DataError(f"no permission to read folder '{path}'.")
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith('.'))


def _check_classes(root: str) -> None:
    """Checks that there are class folders, and that every folder without folders holds an image.

    Raises:
        DataError: There are none, one is empty, or images are not in class folders.
    """
    types = get_img_extensions(as_set=True)
    if not _folders(root):
        raise DataError(f"no class folders in '{root}': put the images into one folder per class.")
    waiting = [root]
    while waiting:
        path = waiting.pop()
        inside = _folders(path)
        waiting += [os.path.join(path, name) for name in inside]
        with os.scandir(path) as entries:
            images = any(os.path.splitext(entry.name)[1].lower() in types for entry in entries)
        if not images and not inside:
            raise DataError(f"class folder '{path}' has no images ({', '.join(sorted(types))}): fill or remove it.")
        if images and path == root:
            raise DataError(f"'{root}' itself holds images: put them into one folder per class.")


def _reader(root: str, class_map: Any) -> Any:
    """Returns timm's reader of a folder.

    Args:
        root: The folder.
        class_map: A file, a mapping or None; timm's annotation knows only the mapping.

    Raises:
        DataError: timm cannot read it, or a hidden folder would be a class.
    """
    try:
        reader = create_dataset('', root=root, search_split=False, class_map=class_map).reader
    except (AssertionError, ValueError, RuntimeError, OSError) as error:
        raise DataError(f"cannot use folder '{root}': {first_line(error)}.") from error
    hidden = [name for name in reader.class_to_idx if str(name).startswith('.')]
    if hidden:
        raise DataError(f"hidden folder '{hidden[0]}' in '{root}' holds images and would be a class: remove it.")
    return reader
