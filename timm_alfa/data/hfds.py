"""Hugging Face data sets, by Hub id or folder, through timm's reader."""
import os
import re

import torch
from PIL import Image

from timm_alfa.data.config import DataConfig
from timm_alfa.data.source import Source
from timm_alfa.errors import DataError, one_of


def _load(what, name: str, data: DataConfig, **kwargs):
    """Calls one of datasets' loading functions and gives what fails as one line."""
    try:
        return what(name, cache_dir=data.data_dir or None, **kwargs)
    except Exception as error:  # datasets raises its own, huggingface_hub's, pyarrow's, OSError, ValueError
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot load data set 'hfds/{name}': {why}") from error


def _name(data: DataConfig) -> str:
    """The Hub id or folder after the prefix; a folder that is not there fails here and not after five retries."""
    name = data.dataset.split('/', 1)[1]
    is_path = name.startswith(('.', '/', '~')) or name.count('/') > 1 or os.path.exists(name)
    if is_path and not os.path.isdir(os.path.expanduser(name)):
        raise DataError(f"no folder '{name}' (of --dataset {data.dataset}, from {os.getcwd()}): give one that exists.")
    if is_path and not os.access(os.path.expanduser(name), os.R_OK | os.X_OK):
        raise DataError(f"no permission to read folder '{name}'.")
    return os.path.expanduser(name)


def splits(data: DataConfig) -> tuple[str, ...]:
    """Names of the splits, without reading the data."""
    import datasets
    builder = _load(datasets.load_dataset_builder, _name(data), data)
    known = builder.info.splits or getattr(builder.config, 'data_files', None) or ()
    return tuple(str(name) for name in known)


def _column(kind: str, given, usual: str, matching: list[str], columns: list[str]) -> str:
    """The column to read: as given, timm's default name, or the only one of its type."""
    if given is not None:
        if given not in columns:
            raise DataError(one_of(f'column --{kind}-key', given, columns))
        return given
    if usual in columns:
        return usual
    if len(matching) == 1:
        return matching[0]
    raise DataError(f"--{kind}-key is not given and there is no column '{usual}': give one of {', '.join(columns)}.")


class HfdsSource(Source):
    """A split of a data set; images are decoded when asked for."""

    def __init__(self, data: DataConfig, split: str):
        import datasets
        from timm.data import create_dataset
        name = _name(data)
        table = _load(datasets.load_dataset, name, data, split=split)
        types = table.features
        images = [column for column, kind in types.items() if isinstance(kind, datasets.Image)]
        labels = [column for column, kind in types.items() if isinstance(kind, datasets.ClassLabel)]
        input_key = _column('input', data.input_key, 'image', images, list(types))
        target_key = _column('target', data.target_key, 'label', labels, list(types))
        if not isinstance(types[input_key], datasets.Image):
            raise DataError(f"column '{input_key}' holds no images: give --input-key {' or '.join(images) or '...'}.")
        try:
            self.reader = create_dataset(
                f'hfds/{name}', root=data.data_dir or None, split=split, class_map=data.class_map or None,
                input_key=input_key, target_key=target_key).reader
            targets = list(self.reader.iter_targets()) if data.class_map else self.reader.dataset[target_key][:]
            targets = torch.tensor([-1 if target is None else target for target in targets])
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"column '{target_key}' gives no whole-number labels ({type(error).__name__}: {error}). "
                'Give another --target-key, or --class-map.') from error
        if targets.ndim != 1 or targets.is_floating_point():
            raise DataError(f"column '{target_key}' holds no whole-number label a row: give another --target-key.")
        names = sorted(self.reader.class_to_idx, key=self.reader.class_to_idx.get)
        super().__init__(split, targets, map(str, names))

    def open(self, index: int) -> Image.Image:
        with self.reader[index][0] as file:
            image = Image.open(file)
            image.load()
        return image

    def label(self, index: int) -> str:
        path = self.reader.filename(index)
        return f"row {index} of split '{self.split}'" + (f' ({path})' if path else '')


def base_split(split: str) -> str:
    """The first split in a slice or sum such as `train[:10%]`."""
    return re.split(r'[\[+]', split)[0]
