"""Image files by their paths."""

import os
from typing import Any, Iterable, Iterator, Sequence

from PIL import Image

from timm_alfa.data.datasets.base import Source
from timm_alfa.data.datasets.folder_scan import natural_key, walk
from timm_alfa.data.datasets.image_files import read_image
from timm_alfa.errors import DataError


class PathSource(Source):
    """A split whose images are files.

    Args:
        split: Name of the split.
        paths: One for each image.
        targets: Labels, (n,) integers.
        class_names: In the order of the labels; empty if the data names no classes.
    """

    def __init__(self, split: str, paths: Sequence[str], targets: Any, class_names: Iterable[str] = ()):
        super().__init__(split, targets, class_names)
        self.paths = list(paths)

    def open(self, index: int) -> Image.Image:
        return read_image(self.paths[index])

    def label(self, index: int) -> str:
        return f"image '{self.paths[index]}'"

    def image_name(self, index: int) -> str:
        return str(self.paths[index])


class Unlabeled(PathSource):
    """Images whose classes are not known: all labels are 0."""

    remedy = 'Fix or remove it.'

    def __init__(self, paths: Sequence[str]):
        super().__init__('', paths, [0] * len(paths))


def find_images(places: Iterable[str]) -> Iterator[str]:
    """Yields the paths of images: a file is one, whatever it is called, and in a folder all below it are.

    Raises:
        DataError: A place does not exist, or is a folder that holds no images or cannot be read.
    """
    for place in places:
        if not os.path.isdir(place):
            if not os.path.exists(place):
                raise DataError(f"there is no image or folder '{place}' (from {os.getcwd()}).")
            yield place
            continue
        found = [os.path.join(folder.path, name) for folder in walk(place) for name in folder.images]
        if not found:
            raise DataError(f"folder '{place}' has no images.")
        yield from sorted(found, key=natural_key)
