"""Hugging Face datasets, `hfds/`, by Hub id or folder, through timm's reader."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union, cast

import torch
from PIL import Image

from timm_alfa.data.datasets.base import Source, caught, ordered_names
from timm_alfa.data.datasets.image_files import decode_image, read_image
from timm_alfa.errors import DataError, first_line, one_of

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig


MAX_PATH = 1000  # characters of an image's name that a message quotes


def splits(data: 'DataConfig') -> tuple[str, ...]:
    """Returns the names of the splits, without reading the data.

    Raises:
        DataError: The dataset cannot be found or loaded.
    """
    import datasets

    builder = _load(datasets.load_dataset_builder, _name(data), data)
    known = builder.info.splits or getattr(builder.config, 'data_files', None) or ()
    return tuple(str(name) for name in known)


def hub_id(dataset: str) -> Optional[str]:
    """Returns the Hub id that `--dataset` names, or None for a folder: OWNER/NAME is an id."""
    rest = dataset.partition('/')[2]
    is_folder = rest.startswith(('/', '.')) or rest.count('/') != 1
    return None if is_folder else rest


def is_local(data: 'DataConfig') -> bool:
    """Whether opening the data downloads nothing: it is a folder, or in the cache of `datasets`."""
    name = data.dataset.partition('/')[2]
    if os.path.isdir(os.path.expanduser(name)):
        return True
    from datasets import config

    cache = Path(data.data_dir or config.HF_DATASETS_CACHE)
    return any(cache.glob(f'{name.replace("/", "___")}*/**/*.arrow'))


class HfdsSource(Source):
    """A split of a dataset; images are decoded when they are read.

    Args:
        data: `input_key` and `target_key` name the columns of images and labels, `data_dir` is the cache.
        split: One of `splits`, a slice or a sum, such as 'train[:10%]'.

    Raises:
        DataError: The data cannot be loaded, or a column cannot be used.
    """

    def __init__(self, data: 'DataConfig', split: str):
        import datasets

        # columns
        name = _name(data)
        types = _load(datasets.load_dataset, name, data, split=split).features
        images = [column for column, kind in types.items() if isinstance(kind, datasets.Image)]
        labels = [column for column, kind in types.items() if isinstance(kind, datasets.ClassLabel)]
        input_key = _column('input', data.input_key, 'image', images, list(types))
        target_key = _column('target', data.target_key, 'label', labels, list(types))
        if input_key not in images:
            raise DataError(f"column '{input_key}' holds no images: --input-key may be {', '.join(images) or 'none'}.")
        if not isinstance(types[target_key], (datasets.ClassLabel, datasets.Value)):
            raise _not_integers(target_key)  # reading another type may decode what it holds

        # labels now, images later
        reader = _reader(name, data, split, input_key, target_key)
        targets = _targets(reader, target_key, bool(data.class_map))
        super().__init__(split, targets, ordered_names(reader.class_to_idx))
        self.table, self.key = reader.dataset.select_columns([input_key]), input_key
        self.roots = _roots(name, data)

    def open(self, index: int) -> Image.Image:
        return _decoded(self.table[index][self.key], self.roots)

    def images(self, indices: list[int], mode: str) -> list[Union[Image.Image, DataError]]:
        # One look-up for all rows: row by row costs more than decoding a small image.
        items = self.table[indices][self.key]
        reads = [partial(_converted, item, self.roots, mode) for item in items]
        return [caught(self.guard, index, read) for index, read in zip(indices, reads, strict=True)]

    def label(self, index: int) -> str:
        path = self.table[index][self.key]['path']
        return f"row {index} of split '{self.split}'" + (f' ({path[:MAX_PATH]})' if path else '')


def _name(data: 'DataConfig') -> str:
    """Returns the Hub id or folder after the prefix.

    Raises:
        DataError: It is empty, or a folder that does not exist or cannot be read: `datasets` would try five times to
            find it on the Hub.
    """
    name = os.path.expanduser(data.dataset.split('/', 1)[1])
    if not name:
        raise DataError(f'--dataset {data.dataset} has no name: use hfds/NAME or hfds/FOLDER.')
    is_path = name.startswith(('.', '/')) or name.count('/') > 1 or os.path.exists(name)
    if is_path and not os.path.isdir(name):
        raise DataError(f"no folder '{name}' (--dataset {data.dataset}, from {os.getcwd()}): use one that exists.")
    if is_path and not os.access(name, os.R_OK | os.X_OK):
        raise DataError(f"no permission to read folder '{name}'.")
    return name


def _load(function: Callable, name: str, data: 'DataConfig', **kwargs) -> Any:
    """Calls one of `datasets`' loading functions; any failure is one line.

    Raises:
        DataError: It failed.
    """
    try:
        return function(name, cache_dir=data.data_dir or None, **kwargs)
    except Exception as error:  # datasets raises its own, huggingface_hub's, pyarrow's, OSError, ValueError
        raise DataError(
            f'cannot load --dataset hfds/{name}: {first_line(error)}. '
            "Use a folder that exists or a dataset's id on the Hub."
        ) from error


def _column(kind: str, given: Optional[str], usual: str, matching: list[str], columns: list[str]) -> str:
    """Returns the column to read: the given one, timm's default, or the only one of its type.

    Args:
        kind: 'input' or 'target'.
        given: What the option says.
        usual: timm's default name.
        matching: Columns of the right type.
        columns: All columns.

    Raises:
        DataError: There is no such column, or it is not clear which one is meant.
    """
    if given is not None:
        if given not in columns:
            raise DataError(one_of(f'column --{kind}-key', given, columns))
        return given
    if usual in columns:
        return usual
    if len(matching) == 1:
        return matching[0]
    raise DataError(f"--{kind}-key is not given and there is no column '{usual}': use one of {', '.join(columns)}.")


def _reader(name: str, data: 'DataConfig', split: str, input_key: str, target_key: str) -> Any:
    """Returns timm's reader of a split.

    Raises:
        DataError: The columns or the class map cannot be used.
    """
    from timm.data import create_dataset

    try:
        return create_dataset(
            f'hfds/{name}',
            root=data.data_dir or None,
            split=split,
            class_map=cast(Any, data.class_map or None),  # a file, too, which timm's annotation leaves out
            input_key=input_key,
            target_key=target_key,
        ).reader
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise _no_labels(target_key, error) from error


def _targets(reader: Any, target_key: str, mapped: bool) -> torch.Tensor:
    """Returns the labels, (n,) int64; a missing one is -1.

    Args:
        reader: timm's.
        target_key: Column of the labels.
        mapped: Whether a class map numbers them.

    Raises:
        DataError: The column does not hold one integer per row.
    """
    try:
        # without other columns: where a row is read, all of it is decoded
        reader.dataset = reader.dataset.select_columns([reader.image_key, target_key])
        targets = list(reader.iter_targets()) if mapped else reader.dataset[target_key][:]
        targets = torch.tensor([-1 if target is None else target for target in targets])
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise _no_labels(target_key, error) from error
    if targets.ndim != 1 or targets.is_floating_point():
        raise _not_integers(target_key)
    return targets


def _not_integers(target_key: str) -> DataError:
    """Returns the error for a column of another type."""
    return DataError(f"column '{target_key}' does not hold one integer label per row: use another --target-key.")


def _no_labels(target_key: str, error: Exception) -> DataError:
    """Returns the error for a column that cannot be read as labels."""
    return DataError(
        f"column '{target_key}' gives no labels ({type(error).__name__}: {first_line(error)}): "
        'use another --target-key, or the right --class-map.'
    )


def _roots(name: str, data: 'DataConfig') -> tuple[str, ...]:
    """Returns the folders that rows may name images in: that of the dataset, and the caches of downloads."""
    from datasets import config
    from huggingface_hub import constants

    folders = [config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE]
    folders += [data.data_dir] if data.data_dir else []
    folders += [name] if os.path.isdir(name) else []
    return tuple(os.path.abspath(folder) for folder in folders)


def _decoded(item: dict, roots: tuple[str, ...]) -> Image.Image:
    """Decodes an image from its bytes, or from its file if the row holds no bytes.

    Raises:
        ValueError: The file is in none of these folders.
    """
    if item['bytes']:
        return decode_image(item['bytes'])
    path = os.path.abspath(item['path'])
    if not any(path.startswith(os.path.join(root, '')) for root in roots):
        raise ValueError(f"its file '{path[:MAX_PATH]}' is outside of the dataset")
    return read_image(path)


def _converted(item: dict, roots: tuple[str, ...], mode: str) -> Image.Image:
    return _decoded(item, roots).convert(mode)
