"""Hugging Face data sets, by Hub id or folder, through timm's reader."""

import io
import os

import torch
from PIL import Image

from timm_alfa.data.config import DataConfig
from timm_alfa.data.datasets.base import Source, caught, decoded, ordered_names
from timm_alfa.errors import DataError, first_line, one_of


def _load(what, name: str, data: DataConfig, **kwargs):
    """Calls one of datasets' loading functions and gives what fails as one line."""
    try:
        return what(name, cache_dir=data.data_dir or None, **kwargs)
    except Exception as error:  # datasets raises its own, huggingface_hub's, pyarrow's, OSError, ValueError
        raise DataError(
            f'cannot load --dataset hfds/{name}: {first_line(error)}. '
            "Give a folder that exists or a data set's id on the Hub."
        ) from error


def _name(data: DataConfig) -> str:
    """The Hub id or folder after the prefix; a folder that is not there fails here and not after five retries."""
    name = os.path.expanduser(data.dataset.split('/', 1)[1])
    if not name:
        raise DataError(f'--dataset {data.dataset} names nothing: give hfds/NAME or hfds/FOLDER.')
    is_path = name.startswith(('.', '/')) or name.count('/') > 1 or os.path.exists(name)
    if is_path and not os.path.isdir(name):
        raise DataError(f"no folder '{name}' (of --dataset {data.dataset}, from {os.getcwd()}): give one that exists.")
    if is_path and not os.access(name, os.R_OK | os.X_OK):
        raise DataError(f"no permission to read folder '{name}'.")
    return name


def splits(data: DataConfig) -> tuple[str, ...]:
    """Names of the splits, without reading the data."""
    import datasets

    builder = _load(datasets.load_dataset_builder, _name(data), data)
    known = builder.info.splits or getattr(builder.config, 'data_files', None) or ()
    return tuple(str(name) for name in known)


def _column(kind: str, given: str | None, usual: str, matching: list[str], columns: list[str]) -> str:
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


def _decoded(item: dict) -> Image.Image:
    """An image from its bytes, or from its file where the row holds none."""
    return decoded(io.BytesIO(item['bytes']) if item['bytes'] else item['path'])


class HfdsSource(Source):
    """A split of a data set; images are decoded when asked for."""

    def __init__(self, data: DataConfig, split: str):
        import datasets

        name = _name(data)
        types = _load(datasets.load_dataset, name, data, split=split).features
        images = [column for column, kind in types.items() if isinstance(kind, datasets.Image)]
        labels = [column for column, kind in types.items() if isinstance(kind, datasets.ClassLabel)]
        input_key = _column('input', data.input_key, 'image', images, list(types))
        target_key = _column('target', data.target_key, 'label', labels, list(types))
        if input_key not in images:
            raise DataError(f"column '{input_key}' holds no images: --input-key may be {', '.join(images) or 'none'}.")
        reader, targets = self._read(name, data, split, input_key, target_key)
        super().__init__(split, targets, ordered_names(reader.class_to_idx))
        self.table, self.key = reader.dataset.select_columns([input_key]), input_key

    @staticmethod
    def _read(name: str, data: DataConfig, split: str, input_key: str, target_key: str):
        """timm's reader, and the labels, (n,) int64; a missing label is -1."""
        from timm.data import create_dataset

        try:
            reader = create_dataset(
                f'hfds/{name}',
                root=data.data_dir or None,
                split=split,
                class_map=data.class_map or None,
                input_key=input_key,
                target_key=target_key,
            ).reader
            targets = list(reader.iter_targets()) if data.class_map else reader.dataset[target_key][:]
            targets = torch.tensor([-1 if target is None else target for target in targets])
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"column '{target_key}' gives no labels ({type(error).__name__}: {first_line(error)}): "
                'give another --target-key, or the right --class-map.'
            ) from error
        if targets.ndim != 1 or targets.is_floating_point():
            raise DataError(f"column '{target_key}' holds no whole-number label a row: give another --target-key.")
        return reader, targets

    def open(self, index: int) -> Image.Image:
        return _decoded(self.table[index][self.key])

    def images(self, indices: list[int], mode: str) -> list[Image.Image | DataError]:
        # One look-up for all rows: row by row costs more than decoding a small image.
        items = self.table[indices][self.key]
        return [
            caught(self.guard, index, lambda item=item: _decoded(item).convert(mode))
            for index, item in zip(indices, items, strict=True)
        ]

    def label(self, index: int) -> str:
        path = self.table[index][self.key]['path']
        return f"row {index} of split '{self.split}'" + (f' ({path})' if path else '')
