"""Training states: folders that are whole or not there.

`last/` holds one folder a state, `NNNNNN-update-U/`. A state is written under a temporary name, flushed, renamed, and
only then are older ones removed; its marker lists the files and their sizes, and what has no marker, or does not match
it, is never picked up.
"""

import json
import os
import re
import shutil
from pathlib import Path

from timm_alfa.errors import CheckpointError
from timm_alfa.utils import files

MARKER = 'COMPLETE'
NAME = re.compile(r'(\d{6,})-update-\d+')


def state_folders(path: Path) -> list[Path]:
    """Usable states, the oldest first."""
    if not path.is_dir():
        return []
    return sorted((each for each in path.iterdir() if NAME.fullmatch(each.name) and is_whole(each)), key=_number)


def _number(path: Path) -> int:
    return int(NAME.fullmatch(path.name)[1])


def is_whole(path: Path) -> bool:
    """Whether a state's marker is there and its files have the sizes it tells."""
    try:
        sizes = json.loads((path / MARKER).read_text())
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


class CheckpointStore:
    """The states in a run's `last/`.

    Args:
        path: That folder.
        keep: States kept.
    """

    def __init__(self, path: Path, keep: int = 1):
        self.path, self.keep = Path(path), keep

    def write(self, updates: int, write_files) -> Path:
        """Writes a state and prunes older ones.

        Args:
            updates: For its name.
            write_files: Called with a folder; fills it.

        Raises:
            CheckpointError: It could not be written; all states before it are still there.
        """
        try:
            self.path.mkdir(exist_ok=True)  # not its parents: a run's folder that has vanished is a fault
            taken = [_number(each) for each in self.path.iterdir() if NAME.fullmatch(each.name)]
            target = self.path / f'{max(taken, default=0) + 1:06d}-update-{updates}'
            temporary = self.path / f'.{target.name}.tmp'
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            write_files(temporary)
            seal(temporary)
            os.rename(temporary, target)
            files.sync(self.path)
        except Exception as error:
            for left in self.path.glob('.*.tmp') if self.path.is_dir() else ():
                shutil.rmtree(left, ignore_errors=True)
            if not files.is_write_fault(error):
                raise
            raise CheckpointError(files.write_fault(self.path, error)) from error
        self.prune(target)
        return target

    def prune(self, newest: Path) -> None:
        """Removes all but the newest states, and what writers that were killed have left."""
        keep = {newest, *state_folders(self.path)[-self.keep :]}
        for each in self.path.iterdir():
            if each not in keep and (NAME.fullmatch(each.name) or each.name.endswith('.tmp')):
                shutil.rmtree(each, ignore_errors=True)


def seal(folder: Path) -> None:
    """Flushes a state's files and writes its marker, last."""
    sizes = {}
    for each in sorted(folder.iterdir()):
        files.sync(each)
        sizes[each.name] = each.stat().st_size
    marker = folder / MARKER
    marker.write_text(json.dumps(sizes))
    files.sync(marker)
    files.sync(folder)
