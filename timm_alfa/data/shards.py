"""WebDataset's tar shards in a folder, `wds/`: indexed once, then read by position, so that any order can be had."""
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.readers.class_map import load_class_map
from tqdm import tqdm

from timm_alfa.data.config import DataConfig
from timm_alfa.data.source import EVAL_NAMES, TRAIN_NAMES, Source, ordered_names, why
from timm_alfa.errors import DataError, one_of

INFOS = ('_info.json', 'info.json')  # timm's: splits, each with filenames and shard_lengths
IMAGES = 'jpg;jpeg;png;webp'
MEMBER = re.compile(r'((?:.*/)?[^.]+)\.([^/]+)')  # webdataset's: what goes before the first dot names the sample
SPLIT = re.compile(rf"(?:^|[-_.])({'|'.join((*TRAIN_NAMES, *EVAL_NAMES))})(?=[-_.])")


@dataclass(frozen=True)
class Shards:
    """The shards of a split.

    Attributes:
        paths: Files, in order.
        lengths: How many images each is said to hold; empty where nothing says it.
        target_key: Field of the JSON sidecars that holds the label, where the data names one.
    """
    paths: tuple[Path, ...]
    lengths: tuple[int, ...] = ()
    target_key: str | None = None


def root_of(data: DataConfig) -> Path:
    """The folder of the shards: --data-dir, or what follows the prefix.

    Raises:
        DataError: It is no folder of this machine.
    """
    given = data.data_dir or data.dataset.split('/', 1)[1]
    root = Path(os.path.expanduser(given))
    if not given or not root.is_dir():
        raise DataError(f"no folder '{given}' (of --dataset {data.dataset}, from {os.getcwd()}): give --data-dir a "
                        'folder with tar shards; those of a server must be copied first.')
    return root


def layout(data: DataConfig) -> dict[str, Shards]:
    """The splits, as the folder's info file lists them, or else by the names of its shards.

    Raises:
        DataError: There are none, or a shard that is listed is not there.
    """
    root = root_of(data)
    info = next((root / name for name in INFOS if (root / name).is_file()), None)
    found = _listed(info) if info else _named(root)
    if not found:
        raise DataError(f"no shards in '{root}': there is no {INFOS[0]}, and no NAME-train-0000.tar or the like.")
    missing = [path for shards in found.values() for path in shards.paths if not path.is_file()]
    if missing:
        raise DataError(f"{info} lists shards that are not there, '{missing[0]}' and {len(missing) - 1} others: "
                        'complete the folder.')
    return found


def _listed(info: Path) -> dict[str, Shards]:
    try:
        return {name: Shards(tuple(info.parent / file for file in split['filenames']),
                             tuple(split.get('shard_lengths') or ()), split.get('alt_label') or None)
                for name, split in json.loads(info.read_text(encoding='utf-8'))['splits'].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{info}' lists no splits with their filenames ({type(error).__name__}: {why(error)}): mend "
                        'it, or remove it and let the names of the shards say it.') from error


def _named(root: Path) -> dict[str, Shards]:
    files: dict[str, list[Path]] = {}
    for path in sorted(root.glob('*.tar')):
        if match := SPLIT.search(path.name):
            files.setdefault(match[1], []).append(path)
    return {name: Shards(tuple(paths)) for name, paths in files.items()}


def splits(data: DataConfig) -> tuple[str, ...]:
    """Names of the splits, without reading a shard."""
    return tuple(layout(data))


def samples(path: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo], tarfile.TarFile]]:
    """A shard's samples: their key, and their files by extension; neighbours of one key belong together.

    Raises:
        DataError: It is no tar file, is compressed (positions in it cannot be read alone), or is cut off.
    """
    size = path.stat().st_size
    try:
        with tarfile.open(path, 'r:') as archive:
            key, files = None, {}
            for member in archive:
                match = MEMBER.fullmatch(member.name) if member.isfile() else None
                if match is None:
                    continue
                if member.offset_data + member.size > size:
                    raise DataError(f"shard '{path}' is cut off in {member.name}: copy it again.")
                if match[1] != key and files:
                    yield key, files, archive
                    files = {}
                key, files[match[2].lower()] = match[1], member
            if files:
                yield key, files, archive
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"shard '{path}' cannot be read as an uncompressed tar file: {why(error)}.") from error


def find_label(files: dict[str, tarfile.TarInfo], archive: tarfile.TarFile, target_key: str | None) -> Any:
    """A sample's label: what its .cls file holds, or that field of its .json; None where it is not there."""
    name = 'json' if target_key else 'cls'
    if name not in files:
        return None
    text = archive.extractfile(files[name]).read().decode('utf-8', 'replace')
    if not target_key:
        return text.strip()
    try:
        return json.loads(text).get(target_key)
    except (ValueError, AttributeError):
        return None


class ShardSource(Source):
    """A split of tar shards: where each image lies, and its label.

    Args:
        data: `input_key`: extensions of images, such as 'jpg;png'. `target_key`: a field of the JSON sidecars, in place
            of the .cls files. `class_map`: for labels that are names.
        split: One of `splits`.
    """

    def __init__(self, data: DataConfig, split: str):
        shards = layout(data)[split]
        kinds = (data.input_key or IMAGES).lower().split(';')
        names = _class_names(data.class_map)
        places, targets, self.starts = [], [], [0]
        for at, path in enumerate(tqdm(shards.paths, f"indexing split '{split}'", leave=False, disable=None)):
            for key, files, archive in samples(path):
                image = next((files[kind] for kind in kinds if kind in files), None)
                if image is None:
                    raise DataError(f"sample '{key}' of shard '{path}' has no image: "
                                    + one_of('extension --input-key', ';'.join(kinds), sorted(files)))
                places.append((at, image.offset_data, image.size))
                label = find_label(files, archive, data.target_key or shards.target_key)
                targets.append(_number(label, names))
            self.starts.append(len(places))
            if shards.lengths and len(places) - self.starts[at] != shards.lengths[at]:
                raise DataError(f"shard '{path}' holds {len(places) - self.starts[at]} images, the info file says "
                                f'{shards.lengths[at]}: copy it again, or mend the file.')
        if places and all(target < 0 for target in targets):
            raise DataError(f"no image of split '{split}' has a label: give --target-key a field of the .json files "
                            '(and --class-map for names), or shards with .cls files.')
        super().__init__(split, targets, ordered_names(names))
        self.paths = [str(path) for path in shards.paths]
        self.places = torch.tensor(places, dtype=torch.int64).reshape(-1, 3)

    def open(self, index: int) -> Image.Image:
        shard, start, size = self.places[index].tolist()
        with open(self.paths[shard], 'rb') as file:
            file.seek(start)
            image = Image.open(io.BytesIO(file.read(size)))
        image.load()
        return image

    def label(self, index: int) -> str:
        shard = int(self.places[index, 0])
        return f"image {index - self.starts[shard]} of shard '{self.paths[shard]}'"


def _class_names(path: str) -> dict[str, int]:
    try:
        return load_class_map(path) if path else {}
    except (AssertionError, OSError, ValueError) as error:
        raise DataError(f"cannot read class map '{path}': {why(error)}.") from error


def _number(label: Any, names: dict[str, int]) -> int:
    """A label as a number: by its name, or as it is; -1 where it is neither."""
    if label in names:
        return names[label]
    try:
        return int(label) if int(label) == float(label) else -1
    except (TypeError, ValueError, OverflowError):
        return -1
