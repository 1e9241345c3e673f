"""Hugging Face datasets, `hfds/`, by Hub id or folder."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import torch
from PIL import Image

from timm_alfa.data.datasets.base import Source, caught, ordered_names
from timm_alfa.data.datasets.class_map import ClassMap, check_known, read_class_map
from timm_alfa.data.datasets.image_files import decode_image, read_image
from timm_alfa.data.datasets.image_modes import convert_image
from timm_alfa.errors import DataError, first_line, one_of

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig


MAX_PATH = 1000  # characters of an image's name that a message quotes
MAX_LABEL = 1 << 63
MISSING = -1  # the label of a row that has none


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
        table = _load(datasets.load_dataset, name, data, split=split)
        types = table.features
        images = [column for column, kind in types.items() if isinstance(kind, datasets.Image)]
        labels = [column for column, kind in types.items() if isinstance(kind, datasets.ClassLabel)]
        input_key = _column('input', data.input_key, 'image', images, list(types))
        target_key = _column('target', data.target_key, 'label', labels, list(types))
        if input_key not in images:
            raise DataError(f"column '{input_key}' holds no images: --input-key may be {', '.join(images) or 'none'}.")
        if not isinstance(types[target_key], (datasets.ClassLabel, datasets.Value)):  # reading it may decode it
            raise DataError(f"column '{target_key}' does not hold one label per row: use another --target-key.")

        # labels now, images later
        targets, names = _labels(table, target_key, data.class_map)
        super().__init__(split, targets, names)
        table = table.select_columns([input_key]).cast_column(input_key, datasets.Image(decode=False))
        self.table, self.key = table, input_key
        self.roots = _roots(name, data)

    def open(self, index: int) -> Image.Image:
        return _decoded(self.table[index][self.key], self.roots)

    def images(self, indices: list[int], mode: str) -> list[Union[Image.Image, DataError]]:
        # One look-up for all rows: row by row costs more than decoding a small image.
        items = self.table[indices][self.key]
        reads = [partial(_converted, item, self.roots, mode) for item in items]
        return [caught(self.guard, index, read) for index, read in zip(indices, reads, strict=True)]

    def label(self, index: int) -> str:
        path = (self.table[index][self.key] or {}).get('path')
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


def _labels(table: Any, target_key: str, class_map: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Returns the labels, (n,) int64, and the names of the classes; a missing label is -1.

    Args:
        table: The rows.
        target_key: Column of the labels.
        class_map: File that numbers them; empty to take the column's numbers.

    Raises:
        DataError: The column does not hold one integer per row, or the class map lacks a label.
    """
    column, numbers = table.features[target_key], read_class_map(class_map)
    names = getattr(column, 'names', None) or []
    # without other columns: where a row is read, all of it is decoded
    found = table.select_columns([target_key])[target_key][:]
    if numbers:
        found = _mapped(found, names, numbers, class_map)
    if not all(label is None or isinstance(label, int) for label in set(found)):
        raise DataError(
            f"column '{target_key}' does not hold one integer label per row: use another --target-key, or pass "
            '--class-map a file with the names.'
        )
    if any(label is not None and not -MAX_LABEL <= label < MAX_LABEL for label in set(found)):
        raise DataError(f"column '{target_key}' holds a label of more than 64 bits: use another --target-key.")
    targets = torch.tensor([MISSING if label is None else int(label) for label in found], dtype=torch.int64)
    return targets, ordered_names(numbers) if numbers else tuple(names)


def _mapped(found: list, names: list[str], numbers: ClassMap, class_map: str) -> list[Optional[int]]:
    """Returns the numbers that a class map gives to labels: by the label, its name, or the label as text.

    Raises:
        DataError: It lacks one.
    """
    keys: dict[Any, Any] = {}
    for label in dict.fromkeys(label for label in found if label is not None):
        named = names and isinstance(label, int) and 0 <= label < len(names)
        keys[label] = label if label in numbers else names[label] if named else str(label)
    check_known(keys.values(), numbers, class_map)
    return [None if label is None else numbers[keys[label]] for label in found]


def _roots(name: str, data: 'DataConfig') -> tuple[str, ...]:
    """Returns the folders that rows may name images in: that of the dataset, and the caches of downloads."""
    from datasets import config
    from huggingface_hub import constants

    folders = [config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE]
    folders += [data.data_dir] if data.data_dir else []
    folders += [name] if os.path.isdir(name) else []
    return tuple(os.path.abspath(folder) for folder in folders)


def _decoded(item: Optional[dict], roots: tuple[str, ...]) -> Image.Image:
    """Decodes an image from its bytes, or from its file if the row holds no bytes.

    Raises:
        ValueError: There is no image, or the file is in none of these folders.
    """
    if item is None or not (item['bytes'] or item['path']):
        raise ValueError('the row has no image')
    if item['bytes'] is not None:
        return decode_image(item['bytes'])
    path = os.path.abspath(item['path'])
    if not any(path.startswith(os.path.join(root, '')) for root in roots):
        raise ValueError(f"its file '{path[:MAX_PATH]}' is outside of the dataset")
    return read_image(path)


def _converted(item: Optional[dict], roots: tuple[str, ...], mode: str) -> Image.Image:
    return convert_image(_decoded(item, roots), mode)
