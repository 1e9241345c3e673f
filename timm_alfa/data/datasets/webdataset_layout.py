"""Which tar shards of a folder make up which split, by the folder's info file or the names of the shards."""

import itertools
import os
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from timm_alfa.data.datasets.split_names import EVAL_NAMES, TEST_NAMES, TRAIN_NAMES
from timm_alfa.errors import DataError, first_line
from timm_alfa.utils.plain_data import read_json

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig

INFOS = ('_info.json', 'info.json')  # timm's: splits, each with filenames and shard_lengths
SPLIT = re.compile(rf'(?:^|[-_.])({"|".join((*TRAIN_NAMES, *EVAL_NAMES, *TEST_NAMES))})(?=[-_.])', re.IGNORECASE)
SHOWN = 3  # files that a message names


@dataclass(frozen=True)
class Shards:
    """The shards of a split.

    Attributes:
        paths: Files, in order.
        lengths: Number of samples in each, as the info file states it; empty without one.
        target_key: Field of the JSON sidecars that holds the label, if the info file names one.
    """

    paths: tuple[Path, ...]
    lengths: tuple[int, ...] = ()
    target_key: Optional[str] = None


def root_of(data: 'DataConfig') -> Path:
    """Returns the folder of the shards: --data-dir, or what follows the prefix.

    Raises:
        DataError: It is not a folder on this machine.
    """
    given = data.data_dir or data.dataset.partition('/')[2]
    root = Path(os.path.expanduser(given))
    if not given or not root.is_dir():
        what = f"no folder '{given}' (from {os.getcwd()})"
        if root.is_file():
            what = f"'{given}' is a shard"
        elif '://' in given:
            what = f"shards on a server, '{given}', are not supported"
        raise DataError(f'--dataset {data.dataset}: {what}: pass --data-dir the folder that holds the shards.')
    return root


def layout(data: 'DataConfig') -> dict[str, Shards]:
    """Returns the splits, as the folder's info file lists them, or else by the names of its shards.

    Raises:
        DataError: There are none.
    """
    root = root_of(data)
    info = next((root / name for name in INFOS if (root / name).is_file()), None)
    found = _listed(info) if info else _named(root)
    if not found:
        where = f'{info.name} lists none' if info else f'there is no {INFOS[0]}, and no NAME-train-0000.tar or the like'
        raise DataError(f"no shards in '{root}': {where}{unused(root, found)}.")
    return found


def unused(root: Path, found: dict[str, Shards]) -> str:
    """Returns words about files of a folder that look like shards but are in no split; '' if there are none."""
    used = {path for shards in found.values() for path in shards.paths}
    like = {*root.glob('*.[tT][aA][rR]*'), *root.glob('*/*.tar')}
    names = sorted(str(path.relative_to(root)) for path in like - used)
    if not names:
        return ''
    more = ' ...' if len(names) > SHOWN else ''
    packed = any(not name.lower().endswith('.tar') for name in names)
    hint = ' (unpack compressed ones first)' if packed else ''
    return f'; not used: {", ".join(names[:SHOWN])}{more}{hint}'


def _listed(info: Path) -> dict[str, Shards]:
    """Returns the splits of an info file.

    Raises:
        DataError: It does not list splits with their files.
    """
    try:
        listed = read_json(info)['splits']
        return {name: _of_info(info.parent, split) for name, split in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{info}' does not list splits with their filenames ({type(error).__name__}: {first_line(error)}): "
            'fix it, or remove it to find the splits by the names of the shards.'
        ) from error


def _of_info(root: Path, split: dict[str, Any]) -> Shards:
    """Returns one split of an info file, or raises what `_listed` turns into an error."""
    names, lengths = split['filenames'], split.get('shard_lengths') or ()
    if isinstance(names, str):
        raise TypeError(f"filenames is '{names}', not a list")
    for name in names:
        if not isinstance(name, str) or Path(name).is_absolute() or '..' in Path(name).parts:
            raise ValueError(f'filenames has {name!r}, which is not the name of a file in this folder')
    if lengths and len(lengths) != len(names):
        raise ValueError(f'{len(names)} filenames, {len(lengths)} shard_lengths')
    return Shards(tuple(root / name for name in names), tuple(lengths), split.get('alt_label') or None)


def _named(root: Path) -> dict[str, Shards]:
    """Returns the splits that the names of the shards tell.

    Raises:
        DataError: A shard between two others is missing.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(root.glob('*.tar'), key=_by_number):
        if found := SPLIT.findall(path.name):
            files.setdefault(found[-1].lower(), []).append(path)  # an earlier match may be part of the dataset's name
    for paths in files.values():
        _check_complete(paths)
    return {name: Shards(tuple(paths)) for name, paths in files.items()}


def _check_complete(paths: list[Path]) -> None:
    """Checks that the numbers of a split's shards have no gap.

    Raises:
        DataError: They have one.
    """
    for path, later in itertools.pairwise(paths):
        before, number, _ = _by_number(path)
        after, next_number, _ = _by_number(later)
        if before == after and next_number > number + 1 > 0:
            raise DataError(
                f"shards between '{path}' and '{later.name}' are missing: complete the folder, or "
                f'list its splits in {INFOS[0]}.'
            )


def _by_number(path: Path) -> tuple[str, int, str]:
    """Sorts shard 9 before shard 10: the text before the number, the number (-1 without one), and the whole name."""
    before = path.stem.rstrip(string.digits)
    number = path.stem[len(before) :]
    return before, int(number or -1), path.name
