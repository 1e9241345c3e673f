"""A set of labelled images by index: what every loader reads from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image

from timm_alfa.errors import DataError, first_line

MODES = {1: 'L', 3: 'RGB'}
TRAIN_NAMES = ('train', 'training')
EVAL_NAMES = ('validation', 'val', 'valid', 'eval', 'evaluation', 'test')


class Source:
    """Images and labels of one split. Subclasses give `open` and `label`, and can be pickled (workers get a copy).

    Args:
        split: The name of the split.
        targets: Labels, (n,) whole numbers.
        class_names: In the order of the labels; empty where the data names none.
    """

    def __init__(self, split: str, targets, class_names=()):
        self.split = split
        self.targets = torch.as_tensor(targets, dtype=torch.int64)
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self.targets)

    def open(self, index: int) -> Image.Image:
        """The image as stored, or any exception."""
        raise NotImplementedError

    def label(self, index: int) -> str:
        """What to call an image in a message."""
        return f"image {index} of split '{self.split}'"

    def guard(self, index: int, read: Callable[[], Image.Image]) -> Image.Image:
        """What `read` gives, or a DataError that names the image."""
        try:
            return read()
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
            raise DataError(
                f'cannot read {self.label(index)}: {first_line(error)}. Mend or remove it, or add --skip-corrupt.'
            ) from error

    def image(self, index: int, mode: str) -> Image.Image:
        """The decoded image; never, as timm's data sets do, the next one in place of a broken one.

        Raises:
            DataError: It cannot be read; the message names it.
        """
        return self.guard(index, lambda: self.open(index).convert(mode))

    def images(self, indices: list[int], mode: str) -> list[Image.Image | DataError]:
        """Many decoded images; in place of a broken one its error."""
        return [caught(self.image, index, mode) for index in indices]

    def size(self, index: int) -> tuple[int, int, int]:
        """Channels (1 or 3), height and width as stored, after decoding it all. Raises like `image`."""
        image = self.guard(index, lambda: self.open(index).copy())
        return 1 if image.mode[:1] in '1LIF' else 3, image.height, image.width


@dataclass(frozen=True)
class Part:
    """Some of a source's images.

    Attributes:
        indices: Into the source, (n,) int64.
        train: Whether they are shuffled and augmented.
    """

    source: Source
    indices: torch.Tensor
    train: bool = False

    def __len__(self) -> int:
        return len(self.indices)


def decoded(file) -> Image.Image:
    """An image, read to its end from a path or a file that may then be closed."""
    image = Image.open(file)
    image.load()
    return image


def caught(read: Callable, *args):
    """What `read` gives, or the DataError it raises."""
    try:
        return read(*args)
    except DataError as error:
        return error


def ordered_names(class_to_idx: dict) -> tuple[str, ...]:
    """Class names in the order of the labels; a label without a name is its number."""
    names = {index: str(name) for name, index in reversed(class_to_idx.items())}
    return tuple(names.get(index, str(index)) for index in range(max(names, default=-1) + 1))


def image_mode(in_chans: int) -> str:
    """PIL's mode for a number of input channels.

    Raises:
        DataError: There is none.
    """
    if in_chans not in MODES:
        raise DataError(f'the model takes {in_chans} channels, images have 1 or 3: build it with --in-chans 3 (or 1).')
    return MODES[in_chans]


def check_labels(source: Source, indices: torch.Tensor, num_classes: int) -> None:
    """Raises a DataError that names the first image whose label is not in 0..num_classes-1."""
    targets = source.targets[indices]
    wrong = ((targets < 0) | (targets >= num_classes)).nonzero().flatten()
    if len(wrong):
        first = int(indices[wrong[0]])
        raise DataError(
            f'{source.label(first)} has label {int(source.targets[first])}, valid are 0..{num_classes - 1} '
            f'({len(wrong)} such labels): give another --num-classes, or the right --target-key.'
        )
