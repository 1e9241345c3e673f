"""Files of the runner, which others may have prepared: no link is followed, no name can be guessed.

The package has more of this in `timm_alfa.utils.files`; the runner does without, because importing it loads torch.
"""

import os
import tempfile
from pathlib import Path
from typing import TextIO


def user_path(text: str) -> Path:
    """A path from the command line, with the home folder in place of '~'."""
    return Path(text).expanduser()


def replace_text(path: Path, text: str) -> None:
    """Writes a text file atomically; a link of that name is replaced, what it leads to is left alone."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with open(handle, 'w', encoding='utf-8') as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def open_no_follow(path: Path, flags: int) -> int:
    """Opens a file, and makes it if need be.

    Raises:
        OSError: It is a symbolic link.
    """
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def open_log(path: Path, mode: str) -> TextIO:
    """Opens a log for writing ('w') or appending ('a').

    Raises:
        OSError: It is a symbolic link.
    """
    return open(path, mode, encoding='utf-8', opener=open_no_follow)
