"""The kinds of dataset. A new kind is one file with a `Source` and one row of `KINDS`.

Everything that depends on the kind is in its row: how `--dataset` is parsed, which splits there are, the help texts,
which options have an effect, and what a model card calls the data.
"""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Sequence

from timm_alfa.data.datasets.names import TORCH_NAMES
from timm_alfa.data.datasets.split_names import matching_name
from timm_alfa.errors import DataError, one_of
from timm_alfa.utils.lazy import late

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig
    from timm_alfa.data.datasets.base import Source


def _always_local(data: 'DataConfig') -> bool:
    return True


def _no_hub_id(dataset: str) -> Optional[str]:
    return None


@dataclass(frozen=True)
class Kind:
    """A kind of dataset.

    Attributes:
        patterns: What `--dataset` takes, such as 'hfds/NAME'; empty if it is not `--dataset` that selects the kind.
        splits: Returns the names of the splits there are.
        open: Opens a split.
        open_like: Opens a split with its classes numbered by their place in a list of names, those of the training
            split; None if all splits number their classes alike.
        names: All values of `--dataset`, if there is a fixed list of them.
        title: What messages call the data; empty for `--dataset` or `--data-dir` as given.
        options: Options of `DataConfig` that only some kinds have, with their help for this kind.
        unused: Other options of `DataConfig` that have no effect.
        slices: Whether a split may be a slice or a sum, such as 'train[:10%]'.
        is_local: Whether opening the data downloads nothing.
        hub_id: Returns the dataset's id on the Hub from the value of `--dataset`, or None.
    """

    patterns: tuple[str, ...]
    splits: Callable[['DataConfig'], tuple[str, ...]]
    open: Callable[['DataConfig', str], 'Source']
    open_like: Optional[Callable[['DataConfig', str, Sequence[str]], 'Source']] = None
    names: tuple[str, ...] = ()
    title: str = ''
    options: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    slices: bool = False
    is_local: Callable[['DataConfig'], bool] = _always_local
    hub_id: Callable[[str], Optional[str]] = _no_hub_id


def _in(module: str, name: str) -> Callable[..., Any]:
    """A function of a kind's module, which is imported when the function is called."""
    return late(f'timm_alfa.data.datasets.{module}:{name}')


KINDS = {  # by the prefix of --dataset, or its whole value
    'digits': Kind(
        patterns=('digits',),
        splits=_in('digits', 'splits'),
        open=_in('digits', 'open_split'),
        title="scikit-learn's digits (embedded)",
        unused=('data_dir', 'class_map'),
    ),
    'hfds': Kind(
        patterns=('hfds/NAME', 'hfds/FOLDER'),
        splits=_in('huggingface', 'splits'),
        open=_in('huggingface', 'HfdsSource'),
        options={'input_key': 'column of the images', 'target_key': 'column of the labels'},
        slices=True,
        is_local=_in('huggingface', 'is_local'),
        hub_id=_in('huggingface', 'hub_id'),
    ),
    'wds': Kind(
        patterns=('wds/FOLDER', 'wds'),
        splits=_in('webdataset', 'splits'),
        open=_in('webdataset', 'ShardSource'),
        options={'input_key': 'extensions of the images, such as jpg;png', 'target_key': 'field of the .json files'},
    ),
    'torch': Kind(
        patterns=('torch/NAME',),
        splits=_in('torchvision', 'splits'),
        open=_in('torchvision', 'TorchSource'),
        names=tuple(f'torch/{name}' for name in TORCH_NAMES),
        options={'dataset_download': 'let torchvision download the dataset'},
        unused=('class_map',),
    ),
    'folder': Kind(
        patterns=(),
        splits=_in('image_folder', 'splits'),
        open=_in('image_folder', 'FolderSource'),
        open_like=_in('image_folder', 'FolderSource'),
    ),
}
DEFAULT, FOLDER = 'digits', 'folder'  # without --dataset: the kind without, and with --data-dir

# timm's prefixes that are not supported, and why.
_STREAM = (
    'is a stream: its order cannot be reproduced, so a run could not be resumed. '
    'Use hfds/NAME, wds/ with its shards on disk, or an image folder with --data-dir.'
)
UNSUPPORTED = {'tfds': _STREAM, 'hfids': _STREAM}


def find_kind(dataset: str, data_dir: str = '') -> Optional[str]:
    """Returns the key of `KINDS` that the options select, or None if `dataset` is of no kind."""
    if not dataset:
        return FOLDER if data_dir else DEFAULT
    prefix, slash, _ = dataset.partition('/')
    if not slash:
        return next((key for key, kind in KINDS.items() if dataset in kind.patterns), None)
    key = prefix.lower()
    patterns = KINDS[key].patterns if key in KINDS else ()
    return key if any('/' in pattern for pattern in patterns) else None


def dataset_kind(data: 'DataConfig') -> str:
    """Returns the key of `KINDS` that the options select.

    Raises:
        DataError: There is none.
    """
    found = find_kind(data.dataset, data.data_dir)
    if found is not None:
        return found
    prefix = data.dataset.partition('/')[0].lower()
    if prefix in UNSUPPORTED:
        raise DataError(f'--dataset {data.dataset} {UNSUPPORTED[prefix]}')
    known = [name for kind in KINDS.values() for name in kind.names or kind.patterns]
    raise DataError(one_of('dataset', data.dataset, known) + ' For an image folder use --data-dir alone.')


def open_split(kind: str, data: 'DataConfig', split: str, names: Optional[Sequence[str]] = None) -> 'Source':
    """Opens a split.

    Args:
        kind: Key of `KINDS`.
        data: The options.
        split: One of the kind's splits.
        names: Class names of the training split, to number the classes alike; None to number them independently.
    """
    row = KINDS[kind]
    if names is None or row.open_like is None:
        return row.open(data, split)
    return row.open_like(data, split, names)


def find_split(kind: str, wanted: str, known: Sequence[str]) -> Optional[str]:
    """Returns the split that `wanted` means, as `matching_name`, or a slice or a sum; None without one."""
    if KINDS[kind].slices and re.split(r'[\[+]', wanted)[0] in known:
        return wanted
    return matching_name(wanted, known)


def require_split(kind: str, wanted: str, known: Sequence[str], option: str) -> str:
    """Returns the split that `wanted` means.

    Raises:
        DataError: There is none; the message names `option` and the known ones.
    """
    found = find_split(kind, wanted, known)
    if found is None:
        raise DataError(one_of(f'split {option}', wanted, known))
    return found


def title(data: 'DataConfig') -> str:
    """Returns what messages call the data."""
    return KINDS[dataset_kind(data)].title or data.dataset or data.data_dir


def is_local(data: 'DataConfig') -> bool:
    """Whether opening the data downloads nothing; False if it is of no kind."""
    kind = find_kind(data.dataset, data.data_dir)
    return kind is not None and KINDS[kind].is_local(data)


def hub_id(dataset: str) -> Optional[str]:
    """Returns the Hub id of a dataset from the value of `--dataset`, or None."""
    kind = find_kind(dataset)
    return None if kind is None else KINDS[kind].hub_id(dataset)


def dataset_help() -> str:
    """Returns the help of `--dataset`."""
    patterns = [' or '.join(kind.patterns) for kind in KINDS.values() if kind.patterns]
    return f'{", ".join(patterns)}; empty: --data-dir, or else {DEFAULT}'


def option_help(name: str) -> str:
    """Returns the help of an option that only some kinds have."""
    return ', or '.join(f'{kind.options[name]} ({key})' for key, kind in KINDS.items() if name in kind.options)


def kinds_with(name: str) -> list[str]:
    """Returns the keys of the kinds that have an option."""
    return [key for key, kind in KINDS.items() if name in kind.options]


def special_options() -> list[str]:
    """Returns the options of `DataConfig` that only some kinds have."""
    return list(dict.fromkeys(name for kind in KINDS.values() for name in kind.options))
