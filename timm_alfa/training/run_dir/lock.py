"""One run, one folder: a lock that lasts as long as the process."""

import errno
import fcntl
import os
import warnings
from pathlib import Path
from typing import Optional

from timm_alfa.errors import AlfaWarning, ConfigError
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.run_dir.folder import LOCK, choose_folder, is_probed, is_run, unwritable


class FolderLock:
    """Keeps other starts of train.py out of a run's folder.

    It is a record lock and not a `flock`: it ends with the process, however that ends, and is not inherited by the
    processes that read images, which may outlive it.
    """

    def __init__(self):
        self.descriptor: Optional[int] = None

    def take(self, folder: Path) -> None:
        """Locks a folder.

        Raises:
            ConfigError: It is locked by another process, or cannot be written.
        """
        self.release()
        self.descriptor = _open(folder / LOCK)
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(
                    f"another process trains in '{folder}': wait until it ends, or use another --experiment."
                ) from error
            warnings.warn(
                f"'{folder}' cannot be locked here ({error.strerror}): make sure that no other process trains in it.",
                AlfaWarning,
                stacklevel=2,
            )

    def release(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> 'FolderLock':
        return self

    def __exit__(self, *exception) -> None:
        self.release()


def _open(path: Path) -> int:
    """Opens a lock file without following a link: that would create or lock a file somewhere else."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise ConfigError(
                f"'{path}' is a symbolic link, which training does not make: remove it, or use another --experiment."
            ) from error
        raise unwritable(path.parent, error) from error


def lock_folder(config: TrainConfig, lock: FolderLock) -> Path:
    """Chooses a run's folder, makes it and locks it. Other processes may do the same at the same time.

    Raises:
        ConfigError: It holds another run or other files, is locked, cannot be written, or --resume names no run.
        CheckpointError: Its `last` is a symbolic link.
    """
    while True:
        path = choose_folder(config)
        # a new run gets a new name: with --resume auto, too, if there is none to resume
        numbered = config.run.experiment is None and config.run.resume in (None, 'auto') and not is_run(path)
        try:
            path.mkdir(parents=True, exist_ok=not numbered or is_probed(path))
        except OSError as error:
            if numbered and path.is_dir():
                continue  # another process was faster: take the next number
            raise unwritable(path, error) from error
        lock.take(path)
        if numbered or choose_folder(config) == path:  # nobody began and ended a run here in between
            return path
