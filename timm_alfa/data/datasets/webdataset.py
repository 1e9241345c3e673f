"""WebDataset's tar shards in a folder, `wds/`: indexed once, then read by position, so that any order can be had."""

import io
import itertools
import json
import os
import pickle
import re
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.readers.class_map import load_class_map
from tqdm import tqdm

from timm_alfa.data.config import DataConfig
from timm_alfa.data.datasets.base import EVAL_NAMES, TRAIN_NAMES, Source, decoded, ordered_names
from timm_alfa.errors import AlfaWarning, DataError, first_line, one_of
from timm_alfa.utils.distributed import is_main_process

INFOS = ('_info.json', 'info.json')  # timm's: splits, each with filenames and shard_lengths
IMAGES = 'jpg;jpeg;png;webp'
MEMBER = re.compile(r'((?:.*/)?[^./]+)\.([^/]+)')  # what goes before the first dot names the sample, as in webdataset
SPLIT = re.compile(rf'(?:^|[-_.])({"|".join((*TRAIN_NAMES, *EVAL_NAMES))})(?=[-_.])')


@dataclass(frozen=True)
class Shards:
    """The shards of a split.

    Attributes:
        paths: Files, in order.
        lengths: How many samples each is said to hold; empty where nothing says it.
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
    given = data.data_dir or data.dataset.partition('/')[2]
    root = Path(os.path.expanduser(given))
    if not given or not root.is_dir():
        what = f"no folder '{given}' (from {os.getcwd()})"
        if root.is_file():
            what = f"'{given}' is a shard"
        elif '://' in given:
            what = f"shards of a server, '{given}', are not read"
        raise DataError(f'--dataset {data.dataset}: {what}: give --data-dir the folder that the shards are in.')
    return root


def layout(data: DataConfig) -> dict[str, Shards]:
    """The splits, as the folder's info file lists them, or else by the names of its shards.

    Raises:
        DataError: There are none.
    """
    root = root_of(data)
    info = next((root / name for name in INFOS if (root / name).is_file()), None)
    found = _listed(info) if info else _named(root)
    if not found:
        where = f'{info.name} lists none' if info else f'there is no {INFOS[0]}, and no NAME-train-0000.tar or the like'
        raise DataError(f"no shards in '{root}': {where}{_others(root, found)}.")
    return found


def _listed(info: Path) -> dict[str, Shards]:
    try:
        return {
            name: _of_info(info.parent, split)
            for name, split in json.loads(info.read_text(encoding='utf-8'))['splits'].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{info}' does not list splits with their filenames ({type(error).__name__}: {first_line(error)}): "
            'mend it, or remove it and let the names of the shards say it.'
        ) from error


def _of_info(root: Path, split: dict[str, Any]) -> Shards:
    names, lengths = split['filenames'], split.get('shard_lengths') or ()
    if isinstance(names, str):
        raise TypeError(f"filenames is '{names}', not a list")
    if lengths and len(lengths) != len(names):
        raise ValueError(f'{len(names)} filenames, {len(lengths)} shard_lengths')
    return Shards(tuple(root / name for name in names), tuple(lengths), split.get('alt_label') or None)


def _named(root: Path) -> dict[str, Shards]:
    files: dict[str, list[Path]] = {}
    for path in sorted(root.glob('*.tar'), key=_by_number):
        if found := SPLIT.findall(path.name):
            files.setdefault(found[-1], []).append(path)  # what stands before may be the data set's name
    for paths in files.values():
        for path, later in itertools.pairwise(paths):
            (before, number, _), (after, next_number, _) = _by_number(path), _by_number(later)
            if before == after and next_number > number + 1 > 0:
                raise DataError(
                    f"shards between '{path}' and '{later.name}' are not there: complete the folder, or "
                    f'list its splits in {INFOS[0]}.'
                )
    return {name: Shards(tuple(paths)) for name, paths in files.items()}


def _by_number(path: Path) -> tuple[str, int, str]:
    """What comes before a shard's number, the number, -1 without one, and the whole name: 9 comes before 10."""
    before, number = re.fullmatch(r'(.*?)(\d*)', path.stem).groups()
    return before, int(number or -1), path.name


def _others(root: Path, found: dict[str, Shards]) -> str:
    """Words on files of a folder that look like shards and are not taken; '' where there are none."""
    taken = {path for shards in found.values() for path in shards.paths}
    like = {*root.glob('*.[tT][aA][rR]*'), *root.glob('*/*.tar')}
    names = sorted(str(path.relative_to(root)) for path in like - taken)
    packed = ' (unpack compressed ones first)' if any(not name.lower().endswith('.tar') for name in names) else ''
    return f'; not taken: {", ".join(names[:3])}{" ..." if len(names) > 3 else ""}{packed}' if names else ''


def splits(data: DataConfig) -> tuple[str, ...]:
    """Names of the splits, without reading a shard; warns of files that are in none."""
    root, found = root_of(data), layout(data)
    if others := _others(root, found):
        warnings.warn(f"'{root}' has shards of no split{others}.", AlfaWarning, stacklevel=2)
    return tuple(found)


def samples(path: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo], tarfile.TarFile]]:
    """A shard's samples: their key, and their files by extension; neighbours of one key belong together.

    Raises:
        DataError: It is not there, is no tar file, is compressed (positions in it cannot be read alone), is damaged or
            cut off, or has a file twice in a sample.
    """
    try:
        with tarfile.open(path, 'r:') as archive:
            key, files = None, {}
            for member in archive:
                match = MEMBER.fullmatch(member.name) if member.isfile() else None
                if match is None:
                    continue
                if match[1] != key and files:
                    yield key, files, archive
                    files = {}
                key, extension = match[1], match[2].lower()
                if extension in files:
                    raise DataError(f"shard '{path}' has {key}.{extension} twice: make it anew.")
                files[extension] = member
            if not _is_ended(archive):
                raise DataError(f"shard '{path}' is damaged or cut off after {key}: copy it again.")
            if files:
                yield key, files, archive
    except FileNotFoundError as error:
        raise DataError(f"shard '{path}' is not there: complete the folder.") from error
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"shard '{path}' cannot be read as an uncompressed tar file: {first_line(error)}.") from error


def _is_ended(archive: tarfile.TarFile) -> bool:
    """Whether zeros alone follow where tarfile stopped, a block at least: it stops at any bad header, too."""
    archive.fileobj.seek(archive.offset)
    rest = archive.fileobj.read(tarfile.BLOCKSIZE)
    ended = len(rest) == tarfile.BLOCKSIZE
    while rest and ended:
        ended, rest = not any(rest), archive.fileobj.read(1 << 20)
    return ended


def find_label(files: dict[str, tarfile.TarInfo], archive: tarfile.TarFile, target_key: str | None) -> str:
    """A sample's label as text: what its .cls file holds, or that field of its .json.

    Raises:
        DataError: It is not there; the message says what is.
    """
    fields = _sidecar(files, archive) if target_key or 'cls' not in files else {}
    if target_key:
        if fields.get(target_key) is None:
            raise DataError(one_of('field --target-key', target_key, sorted(fields)))
        return str(fields[target_key])
    if 'cls' not in files:
        hint = f'give --target-key one of the fields of its .json, {", ".join(sorted(fields))}' if fields else 'add one'
        raise DataError(f'there is no .cls file: {hint}.')
    return archive.extractfile(files['cls']).read().decode('utf-8', 'replace').strip()


def _sidecar(files: dict[str, tarfile.TarInfo], archive: tarfile.TarFile) -> dict[str, Any]:
    try:
        found = json.loads(archive.extractfile(files['json']).read())
    except (KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def to_number(label: str, class_map: str, names: dict[str, int]) -> int:
    """A label's number: what the class map says, or without one the number that it is.

    Raises:
        DataError: There is none.
    """
    if names:
        if label not in names:
            raise DataError(one_of(f'label (by --class-map {class_map})', label, list(names)[:10]))
        return names[label]
    try:
        return int(label)
    except ValueError as error:
        raise DataError(
            f"its label is '{label}', no whole number: give --class-map a file with the names, or another --target-key."
        ) from error


def index_shard(
    path: Path,
    data: DataConfig,
    target_key: str | None,
    names: dict[str, int],
) -> list[tuple[int, int, int] | None]:
    """Each sample of a shard: its image's first byte and length, and its label; None for one without an image.

    Args:
        target_key: Field of the JSON sidecars, in place of the .cls files.
        names: The class map.

    Raises:
        DataError: The shard, or a label, cannot be used; or without `skip_corrupt` a sample has no image.
    """
    kinds, found = (data.input_key or IMAGES).lower().split(';'), []
    for key, files, archive in samples(path):
        image = next((files[kind] for kind in kinds if kind in files), None)
        if image is None and not data.skip_corrupt:
            raise DataError(
                f"sample '{key}' of shard '{path}' has no image (--skip-corrupt leaves it out): "
                + one_of('extension --input-key', ';'.join(kinds), sorted(files))
            )
        try:
            found.append(
                image
                and (
                    image.offset_data,
                    image.size,
                    to_number(find_label(files, archive, target_key), data.class_map, names),
                )
            )
        except DataError as error:
            raise DataError(f"sample '{key}' of shard '{path}': {error}") from error
    return found


class ShardSource(Source):
    """A split of tar shards.

    Args:
        data: `input_key`: extensions of images, such as 'jpg;png'. `target_key`: a field of the JSON sidecars, in place
            of the .cls files. `class_map`: what the labels stand for.
        split: One of `splits`.

    Raises:
        DataError: As `index_shard`; or a shard holds another number of samples than the info file says.
    """

    def __init__(self, data: DataConfig, split: str):
        shards, names = layout(data)[split], _class_names(data.class_map)
        places, self.starts, imageless = [], [], 0
        quiet = None if is_main_process() else True  # None: where there is a terminal
        for at, path in enumerate(tqdm(shards.paths, f"indexing split '{split}'", leave=False, disable=quiet)):
            found = index_shard(path, data, data.target_key or shards.target_key, names)
            if shards.lengths and len(found) != shards.lengths[at]:
                raise DataError(
                    f"shard '{path}' holds {len(found)} samples, the info file says {shards.lengths[at]}: "
                    'copy it again, or mend the file.'
                )
            self.starts.append(len(places))
            places += [(at, *place) for place in found if place]
            imageless += found.count(None)
        if imageless:
            warnings.warn(
                f"{imageless} samples of split '{split}' have no image and are left out.", AlfaWarning, stacklevel=2
            )
        self.paths = [str(path) for path in shards.paths]
        table = torch.tensor(places, dtype=torch.int64).reshape(-1, 4)
        self.places = table[:, :3].clone()
        super().__init__(split, table[:, 3].clone(), ordered_names(names))

    def open(self, index: int) -> Image.Image:
        shard, start, size = self.places[index].tolist()
        with open(self.paths[shard], 'rb') as file:
            file.seek(start)
            return decoded(io.BytesIO(file.read(size)))

    def label(self, index: int) -> str:
        shard = int(self.places[index, 0])
        return f"image {index - self.starts[shard]} of shard '{self.paths[shard]}'"


def _class_names(path: str) -> dict[str, int]:
    """A class map by the text of its labels; {} without one."""
    try:
        return {str(name): number for name, number in load_class_map(path).items()} if path else {}
    except (AssertionError, AttributeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"cannot read class map '{path}': {first_line(error)}.") from error
