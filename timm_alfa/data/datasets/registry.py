"""The kinds of data set there are: what `--dataset` may name, and how a split of each is opened."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from timm_alfa.data.config import DataConfig
from timm_alfa.data.datasets import digits, huggingface, image_folder, torchvision, webdataset
from timm_alfa.data.datasets.base import EVAL_NAMES, TRAIN_NAMES, Source
from timm_alfa.errors import DataError, one_of


@dataclass(frozen=True)
class Kind:
    """A kind of data set.

    Attributes:
        splits: Names of the splits there are.
        open: A split as a source; `first` is the training split where that was opened before, else None.
        slices: Whether a split may be a slice or sum, such as `train[:10%]`.
    """

    splits: Callable[[DataConfig], tuple[str, ...]]
    open: Callable[[DataConfig, str, Source | None], Source]
    slices: bool = False


KINDS = {
    'digits': Kind(lambda data: digits.SPLITS, lambda data, split, first: digits.DigitsSource(split)),
    'hfds': Kind(huggingface.splits, lambda data, split, first: huggingface.HfdsSource(data, split), slices=True),
    'torch': Kind(torchvision.splits, lambda data, split, first: torchvision.TorchSource(data, split)),
    'wds': Kind(webdataset.splits, lambda data, split, first: webdataset.ShardSource(data, split)),
    'folder': Kind(image_folder.splits, lambda data, split, first: image_folder.FolderSource(data, split, first)),
}
STREAMS = ('tfds', 'hfids')


def dataset_kind(data: DataConfig) -> str:
    """The row of KINDS for what was asked.

    Raises:
        DataError: There is none.
    """
    prefix, slash, _ = data.dataset.partition('/')
    if slash and prefix.lower() in STREAMS:
        raise DataError(
            f'--dataset {data.dataset} is a stream: its order cannot be reproduced, so a run could not be resumed. '
            'Use hfds/NAME, wds/ with its shards on disk, or an image folder by --data-dir.'
        )
    if (slash or data.dataset == 'wds') and prefix.lower() in ('hfds', 'torch', 'wds'):
        return prefix.lower()
    if data.dataset == '' and data.data_dir:
        return 'folder'
    if data.dataset in ('', 'digits'):
        return 'digits'
    names = ['digits', 'hfds/NAME', 'hfds/FOLDER', 'wds/FOLDER', *(f'torch/{name}' for name in torchvision.TORCH_NAMES)]
    raise DataError(one_of('data set', data.dataset, names) + ' For an image folder give --data-dir alone.')


def find_split(kind: str, wanted: str, known) -> str | None:
    """The split meant by `wanted`: itself, or for a usual name the first of its synonyms there is."""
    if KINDS[kind].slices and re.split(r'[\[+]', wanted)[0] in known:
        return wanted
    groups = [names for names in (TRAIN_NAMES, EVAL_NAMES) if wanted in names and wanted != 'test']
    return next((name for name in (wanted, *(groups[0] if groups else ())) if name in known), None)


def require_split(kind: str, wanted: str, known, option: str) -> str:
    """Like `find_split`, but raises a DataError that names the known ones."""
    found = find_split(kind, wanted, known)
    if found is None:
        raise DataError(one_of(f'split {option}', wanted, known))
    return found
