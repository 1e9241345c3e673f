"""A disk that is full or gone, reported as an error that a user can act on."""

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from timm_alfa.errors import CheckpointError, first_line

# How safetensors, torch and matplotlib word an OSError that they have wrapped.
SIGNS = (
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


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns a failure to write `path` into a CheckpointError; other errors pass.

    Raises:
        CheckpointError: It could not be written.
    """
    try:
        yield
    except Exception as error:
        if not is_write_error(error):
            raise
        reason = getattr(error, 'strerror', None) or first_line(error)
        raise CheckpointError(
            f"cannot write '{path}': {reason}. What was saved before is intact. Fix the cause, then resume with "
            '--resume auto.'
        ) from error


def is_write_error(error: BaseException) -> bool:
    """Whether the disk is the cause and not the program: an OSError, or what a library made of one."""
    text = str(error).lower()
    return isinstance(error, OSError) or any(sign in text for sign in SIGNS)
