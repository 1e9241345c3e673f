"""Which images lie in which class folder: everything in a folder is read, left out and counted, or an error."""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Iterator

from timm_alfa.data.datasets.image_files import image_extensions
from timm_alfa.errors import DataError
from timm_alfa.utils.text import shorten_list

SYSTEM_FILES = ('.ds_store', 'thumbs.db', 'desktop.ini')  # what file managers leave, in lower case
NOT_AN_IMAGE = '._'  # begins the names of files where macOS keeps a file's attributes, whatever follows
SHOWN = 5  # kinds of files that a message lists


@dataclass
class Folder:
    """What lies in one folder.

    Attributes:
        path: The folder.
        images: Names of images.
        inside: Names of visible folders, sorted.
        hidden: Names of hidden folders.
        others: Numbers of other files by extension; those of file managers are not counted.
    """

    path: str
    images: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


@dataclass
class ClassFolders:
    """The class folders below a root.

    Attributes:
        images: Paths relative to the root of each class folder's images, by class.
        others: Numbers of files that are left out, by extension.
    """

    images: dict[str, list[str]]
    others: Counter[str]


def scan_classes(root: str) -> ClassFolders:
    """Finds the images of each class: a class is a folder that holds images, called by its own name.

    Raises:
        DataError: There are no class folders, one is empty or called like another one, images lie beside folders, a
            folder cannot be read, or a link leads back to a folder that it is in.
    """
    found = ClassFolders({}, Counter())
    paths: dict[str, str] = {}
    for folder in walk(root):
        _check_folder(folder, root)
        found.others += folder.others
        if not folder.images:
            continue
        name = os.path.basename(folder.path)
        if name in paths:
            raise DataError(_same_name(paths[name], folder.path))
        paths[name] = folder.path
        relative = os.path.relpath(folder.path, root)
        found.images[name] = [os.path.join(relative, image) for image in folder.images]
    return found


def list_folder(path: str) -> Folder:
    """Lists a folder; what a broken link leads to counts as a file.

    Raises:
        DataError: It does not exist or cannot be read.
    """
    if not os.path.exists(path):
        raise DataError(f"no folder '{path}' (from {os.getcwd()}): pass --data-dir a folder that exists.")
    if not os.path.isdir(path):
        raise DataError(f"'{path}' is not a folder: --data-dir takes a folder with one folder per class.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise DataError(f"no permission to read folder '{path}'.")
    found, extensions = Folder(path), image_extensions()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                extension = os.path.splitext(name)[1].lower()
                if entry.is_dir():
                    (found.hidden if name.startswith('.') else found.inside).append(name)
                elif name.startswith(NOT_AN_IMAGE) and extension in extensions:
                    found.others[f'{NOT_AN_IMAGE}*{extension}'] += 1
                elif extension in extensions:
                    found.images.append(name)
                elif name.lower() not in SYSTEM_FILES:
                    found.others[extension or 'without extension'] += 1
    except OSError as error:
        raise DataError(f"cannot read folder '{path}': {error.strerror}.") from error
    found.inside.sort()
    return found


def natural_key(text: str) -> list:
    """Sorts '9' before '10', in lower case, as timm does; names that differ otherwise only, by their characters.

    timm's own key fails for digits such as '²', and leaves the order of the latter to chance.
    """
    parts = re.split(r'(\d+)', text.lower())
    parts[1::2] = map(int, parts[1::2])
    return [parts, text]


def describe_others(others: Counter[str]) -> str:
    """Returns what kinds of files there are, '12 .heic, 1 .txt'."""
    return shorten_list([f'{count} {extension}' for extension, count in others.most_common()], SHOWN)


def walk(root: str) -> Iterator[Folder]:
    """Yields a folder and all visible ones below it, following links.

    Raises:
        DataError: A folder cannot be read, or a link leads back to a folder that it is in.
    """
    waiting: list[tuple[str, dict[tuple[int, int], str]]] = [(root, {})]
    while waiting:
        path, above = waiting.pop()
        folder = list_folder(path)
        stat = os.stat(path)
        identity = (stat.st_dev, stat.st_ino)
        if identity in above:
            raise DataError(f"link '{path}' leads back to '{above[identity]}', which it is in: remove it.")
        yield folder
        inner = {**above, identity: path}
        waiting += [(os.path.join(path, name), inner) for name in reversed(folder.inside)]


def _check_folder(folder: Folder, root: str) -> None:
    """Checks that a folder holds images or folders, and not both, and no images that are hidden.

    Raises:
        DataError: It does not.
    """
    path = folder.path
    for name in folder.hidden:
        if list_folder(os.path.join(path, name)).images:
            raise DataError(f"hidden folder '{name}' in '{path}' holds images and would be a class: remove it.")
    if folder.images and path == root:
        raise DataError(f"'{root}' itself holds images: put them into one folder per class.")
    if path == root and not folder.inside:
        raise DataError(f"no class folders in '{root}': put the images into one folder per class.")
    if folder.images and folder.inside:
        raise DataError(
            f"class folder '{path}' holds {len(folder.images)} images and {_folders(folder.inside)}: move "
            'the images of each class into one folder, and anything else elsewhere.'
        )
    if not folder.images and not folder.inside:
        held = f' but {describe_others(folder.others)}' if folder.others else ''
        types = ', '.join(sorted(image_extensions()))
        raise DataError(f"class folder '{path}' has no images{held}: fill or remove it. Images are {types}.")


def _folders(names: list[str]) -> str:
    return ('the folder ' if len(names) == 1 else 'the folders ') + shorten_list([repr(name) for name in names], SHOWN)


def _same_name(one: str, other: str) -> str:
    """Returns the error for two folders with one name: parts of the data rather than of a class, most of the time."""
    top = os.path.commonpath([one, other])
    first, second = (os.path.relpath(path, top).split(os.sep)[0] for path in (one, other))
    return (
        f"folders '{one}' and '{other}' have the same name and would be one class: rename or merge them. If "
        f"'{first}' and '{second}' are splits, pass --data-dir {top} --train-split {first} --val-split {second}."
    )
