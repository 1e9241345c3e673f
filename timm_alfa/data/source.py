"""A set of labelled images by index: what every loader reads from."""
from dataclasses import dataclass

import torch
from PIL import Image

from timm_alfa.errors import DataError

MODES = {1: 'L', 3: 'RGB'}
TRAIN_NAMES = ('train', 'training')
EVAL_NAMES = ('validation', 'val', 'valid', 'eval', 'evaluation', 'test')


class Source:
    """Images and labels of one split. Subclasses give `open` and `label`, and pickle cheaply (workers get a copy).

    Args:
        split: The name of the split.
        targets: Labels, (n,) int64.
        class_names: In the order of the labels; empty where the data names none.
    """

    def __init__(self, split: str, targets: torch.Tensor, class_names=()):
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
        return f'image {index} of split {self.split!r}'

    def image(self, index: int, mode: str) -> Image.Image:
        """The decoded image; never, as timm's data sets do, the next one in place of a broken one.

        Raises:
            DataError: It cannot be read; the message names it.
        """
        try:
            return self.open(index).convert(mode)
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f'cannot read {self.label(index)}: {why}. Mend or remove it, or add --skip-corrupt.') from error


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


def pick_split(wanted: str, known) -> str | None:
    """The split meant by `wanted`: itself, or for a usual name the first of its synonyms there is."""
    groups = [names for names in (TRAIN_NAMES, EVAL_NAMES) if wanted in names and wanted != 'test']
    candidates = [wanted, *(groups[0] if groups else ())]
    return next((name for name in candidates if name in known), None)


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
            f'({len(wrong)} such labels): give --num-classes or the right --target-key.')
