"""Files that are whole or not there: temporary name, flush to disk, rename."""

import errno
import hashlib
import json
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Union

from timm_alfa.errors import CheckpointError, first_line


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling to write; on leaving it takes the place of `path`, or is removed if writing failed.

    Raises:
        CheckpointError: Writing failed (disk full, no permission, folder gone); `path` is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors writes files that only their owner reads
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except Exception as error:
        remove_quietly(temporary)
        if not is_write_fault(error):
            raise
        raise CheckpointError(write_fault(path, error)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def is_write_fault(error: BaseException) -> bool:
    """Whether the disk, and not the program, is at fault: OSError, or what safetensors and torch make of one."""
    text = str(error).lower()
    return isinstance(error, OSError) or any(
        word in text
        for word in (
            'no space left',
            'i/o error',
            'os error',
            'io error',
            'no such file',
            'permission denied',
            'file write failed',
            'unexpected pos',
            'parent directory',
            'quota',
        )
    )


def write_fault(path: Path, error: BaseException) -> str:
    """The line for a file that could not be written."""
    reason = getattr(error, 'strerror', None) or first_line(error)
    return (
        f"cannot write '{path}': {reason}. What was saved before is still whole. Mend that, then go on with "
        '--resume auto.'
    )


def remove_quietly(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flushes a file's, or a folder's, content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all.

    Raises:
        CheckpointError: It could not be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def write_json(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all.

    Raises:
        CheckpointError: It could not be written.
    """
    write_text(path, json.dumps(content, indent=2) + '\n')


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading that is itself a regular file: no symbolic link is followed, no pipe or device is opened.

    Raises:
        OSError: It does not exist, is not a regular file, or cannot be read.
    """
    try:
        # without O_NONBLOCK, opening a pipe would wait for somebody to write into it
        descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_NONBLOCK', 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, 'it is a symbolic link') from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'it is not a regular file')
    return os.fdopen(descriptor, 'rb')


def sha256_of(path: Union[str, Path]) -> str:
    """The sha256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
