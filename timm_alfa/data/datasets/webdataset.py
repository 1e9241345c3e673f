"""WebDataset's tar shards in a folder, `wds/`: indexed once, then read by position, so that any order is possible."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from tqdm import tqdm

from timm_alfa.data.datasets.base import Source, ordered_names
from timm_alfa.data.datasets.class_map import by_text, read_class_map
from timm_alfa.data.datasets.image_files import decode_image
from timm_alfa.data.datasets.webdataset_index import index_shard
from timm_alfa.data.datasets.webdataset_layout import Shards, layout, root_of, unused
from timm_alfa.errors import AlfaWarning, DataError
from timm_alfa.utils.distributed import is_main_process
from timm_alfa.utils.files import open_regular

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig


def splits(data: 'DataConfig') -> tuple[str, ...]:
    """Returns the names of the splits, without reading a shard; warns of shards that are in no split."""
    root, found = root_of(data), layout(data)
    if others := unused(root, found):
        warnings.warn(f"'{root}' has shards of no split{others}.", AlfaWarning, stacklevel=2)
    return tuple(found)


class ShardSource(Source):
    """A split of tar shards.

    Args:
        data: `input_key`: extensions of images, such as 'jpg;png'. `target_key`: a field of the JSON sidecars, in place
            of the .cls files. `class_map`: numbers the labels.
        split: One of `splits`.

    Raises:
        DataError: As `index_shard`; or a shard does not hold as many samples as the info file states.
    """

    def __init__(self, data: 'DataConfig', split: str):
        shards, numbers = layout(data)[split], by_text(read_class_map(data.class_map))
        positions: list[tuple[int, int, int, int]] = []
        self.starts: list[int] = []
        imageless = 0
        for at, path in enumerate(_with_progress(shards.paths, split)):
            found = index_shard(path, data, data.target_key or shards.target_key, numbers)
            _check_length(path, len(found), shards, at)
            self.starts.append(len(positions))
            positions += [(at, *image) for image in found if image is not None]
            imageless += found.count(None)
        if imageless:
            warnings.warn(
                f"{imageless} samples of split '{split}' have no image and are skipped.", AlfaWarning, stacklevel=2
            )

        self.paths = [str(path) for path in shards.paths]
        table = torch.tensor(positions, dtype=torch.int64).reshape(-1, 4)  # shard, start, size, target
        self.positions = table[:, :3].clone()
        super().__init__(split, table[:, 3].clone(), ordered_names(numbers))

    def open(self, index: int) -> Image.Image:
        shard, start, size = self.positions[index].tolist()
        with open_regular(self.paths[shard], follow_links=True) as file:
            file.seek(start)
            return decode_image(file.read(size))

    def label(self, index: int) -> str:
        shard = int(self.positions[index, 0])
        return f"image {index - self.starts[shard]} of shard '{self.paths[shard]}'"


def _with_progress(paths: tuple[Path, ...], split: str) -> tqdm:
    """Shows a bar on the main process, if there is a terminal (that is what `disable=None` means)."""
    disable = None if is_main_process() else True
    return tqdm(paths, f"indexing split '{split}'", leave=False, disable=disable)


def _check_length(path: Path, count: int, shards: Shards, at: int) -> None:
    """Checks a shard's number of samples.

    Raises:
        DataError: The info file states another one.
    """
    if shards.lengths and count != shards.lengths[at]:
        raise DataError(
            f"shard '{path}' holds {count} samples, the info file says {shards.lengths[at]}: "
            'copy it again, or fix the file.'
        )
