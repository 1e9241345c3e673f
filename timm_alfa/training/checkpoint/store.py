"""Training states on disk: folders that are complete or not there.

`last/` holds one folder per state, `NNNNNN-update-U/`. A state is written under a temporary name, flushed, renamed, and
only then are older ones removed. Its marker lists the files and their sizes; a state without a marker, or with files
that do not match it, is never loaded.
"""

import json
import re
import shutil
import stat
from pathlib import Path
from typing import Callable

from timm_alfa.errors import CheckpointError
from timm_alfa.training.checkpoint.write_errors import write_errors
from timm_alfa.utils import files
from timm_alfa.utils.plain_data import read_json

MARKER = 'COMPLETE'
NAME = re.compile(r'(\d{6,})-update-\d+')


def state_folders(path: Path) -> list[Path]:
    """The complete states in a `last/` folder, the oldest first."""
    return [each for each in _named_states(path) if is_complete(each)]


def damaged_states(path: Path) -> list[Path]:
    """The states in a `last/` folder that are not complete, the oldest first.

    A killed run leaves none: a state gets its name when it is complete. A copy that was cut short does.
    """
    return [each for each in _named_states(path) if not is_complete(each)]


def _named_states(path: Path) -> list[Path]:
    """What is named like a state in a folder, if there is one, the oldest first."""
    states = [each for each in path.iterdir() if NAME.fullmatch(each.name)] if path.is_dir() else []
    return sorted(states, key=number)


def number(path: Path) -> int:
    """The number of a state, by which it is newer than those before."""
    return int(path.name.partition('-')[0])


def is_complete(path: Path) -> bool:
    """Whether a state has a marker, its files have the sizes listed there, and all of them are regular files."""
    try:
        present = {each.name: each.lstat() for each in path.iterdir()}
        if not all(stat.S_ISREG(each.st_mode) for each in present.values()):
            return False
        sizes = read_json(path / MARKER)
        return all(present[name].st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError, KeyError):
        return False


class CheckpointStore:
    """The states in a run's `last/`.

    Args:
        path: That folder.
        keep: How many states to keep.
    """

    def __init__(self, path: Path, keep: int = 1):
        self.path, self.keep = Path(path), keep

    def write(self, updates: int, write_files: Callable[[Path], None]) -> Path:
        """Writes a state and removes older ones.

        Args:
            updates: How many updates are done, for the state's name.
            write_files: Called with an empty folder, which it fills.

        Raises:
            CheckpointError: The state could not be written; all states before it are still there.
        """
        refuse_link(self.path)
        with write_errors(self.path):
            self.path.mkdir(exist_ok=True)  # without parents: a run folder that has vanished is an error
            target = self.path / f'{self._next_number():06d}-update-{updates}'
            with files.atomic_folder(target) as folder:
                write_files(folder)
                write_marker(folder)
        self.prune(target)
        return target

    def _next_number(self) -> int:
        taken = _named_states(self.path)
        return number(taken[-1]) + 1 if taken else 1

    def prune(self, newest: Path) -> None:
        """Removes all but the newest states, and what killed writers left."""
        keep = {newest, *state_folders(self.path)[-self.keep :]}
        for each in self.path.iterdir():
            if each not in keep and NAME.fullmatch(each.name):
                shutil.rmtree(each, ignore_errors=True)
        files.remove_leftovers(self.path)


def refuse_link(path: Path) -> None:
    """Refuses a folder of states that is a symbolic link.

    Raises:
        CheckpointError: It is one.
    """
    if path.is_symlink():
        raise CheckpointError(
            f"'{path}' is a symbolic link: states would be written, and old ones removed, where it leads. "
            'Remove the link, or use another --experiment.'
        )


def write_marker(folder: Path) -> None:
    """Writes a state's marker, after its other files."""
    sizes = {each.name: each.stat().st_size for each in sorted(folder.iterdir())}
    (folder / MARKER).write_text(json.dumps(sizes))
