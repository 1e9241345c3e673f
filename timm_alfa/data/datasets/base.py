"""A set of labeled images by index: what every loader reads from."""

from dataclasses import dataclass
from typing import Any, Callable, Iterable, Union

import torch
from PIL import Image

from timm_alfa.data.datasets.image_modes import convert_image, to_8_bits
from timm_alfa.errors import DataError, first_line

MODES = {1: 'L', 3: 'RGB'}


class Source:
    """Images and labels of one split. Subclasses implement `open`, and can be pickled: each worker gets a copy.

    Attributes:
        remedy: What to do about an image that cannot be read.

    Args:
        split: Name of the split.
        targets: Labels, (n,) integers.
        class_names: In the order of the labels; empty if the data names no classes.
    """

    remedy = 'Fix or remove it, or add --skip-corrupt.'

    def __init__(self, split: str, targets: Any, class_names: Iterable[str] = ()):
        self.split = split
        self.targets = torch.as_tensor(targets, dtype=torch.int64)
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self.targets)

    def open(self, index: int) -> Image.Image:
        """Returns the image as stored, or raises any exception."""
        raise NotImplementedError

    def label(self, index: int) -> str:
        """Returns what messages call an image."""
        return f"image {index} of split '{self.split}'"

    def image_name(self, index: int) -> str:
        """Returns what a file of predictions calls an image: its path if it has one, or else its index."""
        return str(index)

    def guard(self, index: int, read: Callable[[], Image.Image]) -> Image.Image:
        """Returns what `read` returns.

        Raises:
            DataError: `read` raised anything; the message names the image.
        """
        try:
            return read()
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
            raise DataError(f'cannot read {self.label(index)}: {first_line(error)}. {self.remedy}') from error

    def image(self, index: int, mode: str) -> Image.Image:
        """Decodes an image. timm's datasets would return the next image in place of a broken one: this never does.

        Raises:
            DataError: It cannot be read; the message names it.
        """
        return self.guard(index, lambda: convert_image(self.open(index), mode))

    def images(self, indices: list[int], mode: str) -> list[Union[Image.Image, DataError]]:
        """Decodes several images; a broken one is replaced by its error."""
        return [caught(self.image, index, mode) for index in indices]

    def size(self, index: int) -> tuple[int, int, int]:
        """Returns channels (1 or 3), height and width as stored, after decoding the image. Raises like `image`."""
        image = self.guard(index, lambda: to_8_bits(self.open(index)).copy())
        channels = 1 if image.mode in ('1', 'L', 'LA', 'La') else 3
        return channels, image.height, image.width


@dataclass(frozen=True)
class Subset:
    """Some of a source's images.

    Attributes:
        source: Where the images come from.
        indices: Into the source, (n,) int64.
        train: Whether the images are shuffled and augmented.
    """

    source: Source
    indices: torch.Tensor
    train: bool = False

    def __len__(self) -> int:
        return len(self.indices)


def caught(read: Callable, *args) -> Any:
    """Returns what `read` returns, or the DataError that it raises."""
    try:
        return read(*args)
    except DataError as error:
        return error


def ordered_names(class_to_idx: dict[Any, int]) -> tuple[str, ...]:
    """Returns class names in the order of the labels; a label without a name is called by its number."""
    names = {index: str(name) for name, index in reversed(class_to_idx.items())}
    count = max(names, default=-1) + 1
    return tuple(names.get(index, str(index)) for index in range(count))


def image_mode(in_chans: int) -> str:
    """Returns PIL's mode for a number of input channels.

    Raises:
        DataError: PIL has no such mode.
    """
    if in_chans not in MODES:
        raise DataError(f'the model takes {in_chans} channels, images have 1 or 3: build it with --in-chans 3 (or 1).')
    return MODES[in_chans]


def check_labels(source: Source, indices: torch.Tensor, num_classes: int) -> None:
    """Checks that labels are in 0..num_classes-1.

    Raises:
        DataError: One is not; the message names its image.
    """
    targets = source.targets[indices]
    wrong = ((targets < 0) | (targets >= num_classes)).nonzero().flatten()
    if len(wrong):
        first = int(indices[wrong[0]])
        label = int(source.targets[first])
        meaning = ', which means none' if label == -1 else ''
        raise DataError(
            f'{source.label(first)} has label {label}{meaning}, valid are 0..{num_classes - 1} '
            f'({len(wrong)} such labels): use another --num-classes, or the right --target-key.'
        )
