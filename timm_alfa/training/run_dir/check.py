"""What can be known of a run's folder before data and model are read: whether it is free, and can be written."""

import errno
import os
from pathlib import Path

from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.run_dir.folder import choose_folder, unwritable
from timm_alfa.utils import files


def check_folder(config: TrainConfig) -> Path:
    """The folder that a run would have now. Leaves nothing behind.

    Raises:
        ConfigError: It holds another run, cannot be made or written, or --resume names no run.
        CheckpointError: Its `last` is a symbolic link.
    """
    path = choose_folder(config)
    try:
        _check_writable(path, writes=not config.run.dry_run)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _check_writable(path: Path, writes: bool) -> None:
    """Checks that a folder can be written, or made in the nearest folder above it that exists.

    Args:
        path: The folder.
        writes: Create a file there and remove it again: permissions do not say everything.

    Raises:
        OSError: It cannot.
    """
    existing = path.absolute()
    names = []
    while not os.path.lexists(existing):
        names.append(existing.name)
        existing = existing.parent
    if not os.path.isdir(existing):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))
    if any(len(os.fsencode(name)) > os.pathconf(existing, 'PC_NAME_MAX') for name in names):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    if writes:
        files.check_writable(existing)
