"""Image folders, one folder a class, through timm's reader, with what it leaves unsaid made an error."""

import os

from PIL import Image
from timm.data import create_dataset
from timm.data.readers.img_extensions import get_img_extensions

from timm_alfa.data.config import DataConfig
from timm_alfa.data.datasets.base import EVAL_NAMES, TRAIN_NAMES, Source, decoded, ordered_names
from timm_alfa.errors import DataError, first_line


def _folders(path: str) -> list[str]:
    """Visible folders in a folder, sorted.

    Raises:
        DataError: It is not there, or may not be read: `os.walk` would pass over it in silence.
    """
    if not os.path.exists(path):
        raise DataError(f"no folder '{path}' (from {os.getcwd()}): give --data-dir a folder that exists.")
    if not os.path.isdir(path):
        raise DataError(f"'{path}' is not a folder: --data-dir takes a folder with one folder a class.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise DataError(f"no permission to read folder '{path}'.")
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith('.'))


def layout(data: DataConfig) -> dict[str, str]:
    """Splits and their folders. Without folders named like splits, the root itself is the training split."""
    root = os.path.expanduser(data.data_dir)
    inside = _folders(root)
    named = [name for name in inside if name in (*TRAIN_NAMES, *EVAL_NAMES, data.train_split, data.val_split)]
    # A class may be called 'train', the vehicle: a split has folders of its own, or comes with its counterpart.
    if any(_folders(os.path.join(root, name)) for name in named) or len(named) > 1:
        return {name: os.path.join(root, name) for name in inside}
    return {'train': root}


def splits(data: DataConfig) -> tuple[str, ...]:
    return tuple(layout(data))


def _check_classes(root: str) -> None:
    """Every folder without folders is a class, and holds an image."""
    types = get_img_extensions(as_set=True)
    if not _folders(root):
        raise DataError(f"no class folders in '{root}': put the images into one folder a class.")
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
            raise DataError(f"images lie in '{root}' itself: put them into one folder a class.")


def _reader(root: str, class_map):
    """timm's reader of a folder."""
    try:
        reader = create_dataset('', root=root, search_split=False, class_map=class_map).reader
    except (AssertionError, ValueError, RuntimeError, OSError) as error:
        raise DataError(f"cannot use folder '{root}': {first_line(error)}.") from error
    hidden = [name for name in reader.class_to_idx if str(name).startswith('.')]
    if hidden:
        raise DataError(f"hidden folder '{hidden[0]}' in '{root}' holds images and would be a class: remove it.")
    return reader


class FolderSource(Source):
    """A split of an image folder.

    Args:
        first: The training split: a split of its own numbering would shift labels where it lacks a class.
    """

    def __init__(self, data: DataConfig, split: str, first: 'FolderSource | None' = None):
        root = layout(data)[split]
        _check_classes(root)
        reader = _reader(root, data.class_map or None)
        if first is not None and reader.class_to_idx != first.class_to_idx:
            unknown = sorted(set(reader.class_to_idx) - set(first.class_to_idx))
            if unknown:
                raise DataError(f"split '{split}' has classes the training split lacks: {', '.join(unknown[:5])}.")
            reader = _reader(root, dict(first.class_to_idx))
        self.class_to_idx = reader.class_to_idx
        self.paths = [path for path, _ in reader.samples]
        super().__init__(split, [target for _, target in reader.samples], ordered_names(self.class_to_idx))

    def open(self, index: int) -> Image.Image:
        with open(self.paths[index], 'rb') as file:
            return decoded(file)

    def label(self, index: int) -> str:
        return f"image '{self.paths[index]}'"
