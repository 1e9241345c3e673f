"""Files and folders that are written whole or not at all.

What is written gets an unpredictable temporary name in the folder of its target, is flushed to the disk, and then
renamed. Temporary names are created exclusively and the rename replaces whatever has the target's name: a symbolic link
in either place is never written through.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Optional, Union

_BEFORE_HOME = re.compile(r'((?:local-dir:|(?:hfds|wds|torch)/(?=~))?)(.*)', re.DOTALL)
TEMPORARY = re.compile(r'\.timm_alfa-[0-9a-f]{16}\.tmp')


def expand_home(path: str) -> str:
    """A path with the home folder in place of '~', also after a prefix such as 'local-dir:' or 'hfds/'."""
    prefix, rest = _BEFORE_HOME.fullmatch(path).groups()  # type: ignore[union-attr]  # it matches any text
    return prefix + os.path.expanduser(rest)


def temporary_path(folder: Path) -> Path:
    """A new name in a folder, one that nobody can predict; `TEMPORARY` recognizes it."""
    return folder / f'.timm_alfa-{secrets.token_hex(8)}.tmp'


@contextmanager
def atomic_file(path: Union[str, Path]) -> Iterator[Path]:
    """Gives an empty temporary file to write; on success it replaces `path`, on failure it is removed.

    The permissions are those of the file that it replaces, or else what the umask leaves.

    Raises:
        OSError: The file cannot be created, flushed or renamed; `path` is as it was.
    """
    path = Path(path)
    temporary = temporary_path(path.parent)
    permissions = _create(temporary, _permissions(path))
    try:
        yield temporary
        os.chmod(temporary, permissions)  # safetensors writes files that only their owner may read
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        remove_quietly(temporary)


def _permissions(path: Path) -> Optional[int]:
    """The permission bits of a regular file; None for anything else, links included."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    return mode & 0o777 if stat.S_ISREG(mode) else None


def _create(path: Path, permissions: Optional[int]) -> int:
    """Creates a file that must not exist yet, and returns the permissions that it shall have in the end."""
    wanted = 0o666 if permissions is None else permissions | stat.S_IWUSR
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, wanted)
    try:
        created = os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)
    return created if permissions is None else permissions


@contextmanager
def atomic_folder(path: Union[str, Path]) -> Iterator[Path]:
    """Gives an empty temporary folder to fill with files; on success it becomes `path`, on failure it is removed.

    Raises:
        OSError: It cannot be created, flushed or renamed, or `path` exists and is not an empty folder.
    """
    path = Path(path)
    temporary = temporary_path(path.parent)
    temporary.mkdir()  # fails if the name exists, as a link too
    try:
        yield temporary
        for each in temporary.iterdir():
            sync(each)
        sync(temporary)
        os.rename(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def atomic_link(link: Union[str, Path], name: str) -> None:
    """Makes `link` another name of the file `name` in the same folder, in place of what has that name now.

    It is a symbolic link, or where the file system has none a hard link, or else a copy.

    Raises:
        OSError: None of them can be made; `link` is as it was.
    """
    link = Path(link)
    temporary = temporary_path(link.parent)
    try:
        try:
            os.symlink(name, temporary)
        except OSError:
            os.link(link.with_name(name), temporary)
        os.replace(temporary, link)
    except OSError:
        with atomic_file(link) as copy:
            shutil.copyfile(link.with_name(name), copy)
    finally:
        remove_quietly(temporary)  # it is still there if `link` was a hard link to the same file


def remove_leftovers(folder: Union[str, Path]) -> None:
    """Removes what killed writers left in a folder: entries with our temporary names that belong to this user."""
    for each in Path(folder).iterdir():
        if not TEMPORARY.fullmatch(each.name) or each.lstat().st_uid != os.geteuid():
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        else:
            remove_quietly(each)


def check_writable(folder: Union[str, Path]) -> None:
    """Creates a file in a folder and removes it again.

    Raises:
        OSError: It cannot be created.
    """
    temporary = temporary_path(Path(folder))
    _create(temporary, None)
    temporary.unlink()


def remove_quietly(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flushes the content of a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Union[str, Path], text: str) -> None:
    """Writes a text file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def write_json(path: Union[str, Path], content: Any) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    write_text(path, json.dumps(content, indent=2) + '\n')


def open_regular(path: Union[str, Path], follow_links: bool = False) -> BinaryIO:
    """Opens a regular file for reading: never a pipe or a device.

    Args:
        path: The file.
        follow_links: Also open a regular file that a symbolic link leads to.

    Raises:
        OSError: It does not exist, is not a regular file, or cannot be read.
    """
    # without O_NONBLOCK, opening a pipe would wait until another process writes to it
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, 'O_NONBLOCK', 0)
    if not follow_links:
        flags |= getattr(os, 'O_NOFOLLOW', 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, 'it is a symbolic link') from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'it is not a regular file')
    return os.fdopen(descriptor, 'rb')


def sha256_of(path: Union[str, Path]) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open_regular(path, follow_links=True) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
