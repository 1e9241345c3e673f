"""One run, one folder: a lock that lasts as long as the process."""

import errno
import fcntl
import warnings
from pathlib import Path

from timm_alfa.errors import AlfaWarning, ConfigError
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.run_dir.folder import choose_folder, is_run, unwritable

LOCK = '.lock'


class FolderLock:
    """Keeps other starts of train.py out of a run's folder.

    A record lock and no `flock`: it ends with the process, however that ends, and is not handed on to the processes
    that read images, which may outlive it.
    """

    def __init__(self):
        self.file = None

    def take(self, path: Path) -> None:
        """Locks a folder.

        Raises:
            ConfigError: It is locked by another process.
        """
        self.release()
        try:
            self.file = (path / LOCK).open('a')
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(
                    f"another process trains in '{path}': wait for its end, or give another --experiment."
                ) from error
            warnings.warn(
                f"'{path}' cannot be locked here ({error.strerror}): see that no other process trains in it.",
                AlfaWarning,
                stacklevel=2,
            )

    def release(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def __enter__(self) -> 'FolderLock':
        return self

    def __exit__(self, *exception) -> None:
        self.release()


def lock_folder(config: TrainConfig, lock: FolderLock) -> Path:
    """Chooses a run's folder, makes it and locks it. Other starts may do the same at this moment.

    Raises:
        ConfigError: It holds another run, is locked, cannot be written, or --resume names none.
    """
    while True:
        path = choose_folder(config)
        # a name of our own for a run that begins: with --resume auto, too, where there is none to go on with
        numbered = config.run.experiment is None and config.run.resume in (None, 'auto') and not is_run(path)
        try:
            path.mkdir(parents=True, exist_ok=not numbered)
        except OSError as error:
            if numbered and path.is_dir():
                continue  # another start was faster: the next number
            raise unwritable(path, error) from error
        lock.take(path)
        if numbered or choose_folder(config) == path:  # nobody else began a run here, and ended it, in between
            return path
