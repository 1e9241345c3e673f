"""How a script exits: one line per error, an exit code for the shell, no process left waiting for another."""

import os
import sys
import traceback
from contextlib import contextmanager
from typing import Callable, Optional

from timm_alfa.errors import AlfaError, ConfigError
from timm_alfa.utils.distributed import drop_empty_variables, launched_processes, launched_rank
from timm_alfa.utils.streams import protect_streams
from timm_alfa.utils.text import printable

FAILED, MISUSED, INTERRUPTED = AlfaError.exit_code, 2, 130
PEER_GONE = (
    'connection closed by peer',
    'connection reset by peer',
    'broken pipe',
    'socket timeout',
    'remote process exited',
)


@contextmanager
def before_work():
    """Errors inside are about the options: all processes raise the same one, and the exit code is 2."""
    try:
        with path_errors():
            yield
    except AlfaError as error:
        error.shared, error.exit_code = True, MISUSED
        raise


@contextmanager
def path_errors():
    """Turns an error of the operating system about a path, such as a missing permission, into a `ConfigError`.

    Raises:
        ConfigError: A path cannot be used.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise ConfigError(
            f"'{error.filename}' cannot be used: {error.strerror}. Check the path and its permissions."
        ) from error


def run_main(main: Callable[[], Optional[int]]) -> None:
    """Runs a script's main and exits: 0 done, 1 failed while working, 2 wrong options, 130 after a second Ctrl-C.

    Args:
        main: It may return an exit code of its own.
    """
    protect_streams()
    drop_empty_variables()
    rank, processes = 0, 1
    try:
        with before_work():
            rank, processes = launched_rank(), launched_processes()
            check_asserts(sys.flags.optimize)
        if code := main():
            sys.exit(code)
        return
    except KeyboardInterrupt:
        code, lines = INTERRUPTED, []
    except AlfaError as error:
        code = error.exit_code
        shown = rank == 0 or not error.shared
        lines = [f'error: {line}' for line in str(error).splitlines()] if shown else []
    except Exception as error:
        code, lines = FAILED, unexpected_error(error, processes)
    prefix = f'process {rank}: ' if processes > 1 and rank else ''
    for line in lines:
        sys.stderr.write(f'{prefix}{printable(line)}\n')
    sys.stderr.flush()
    sys.stdout.flush()
    if processes > 1:
        os._exit(code)  # a normal exit would wait for processes that wait for this one
    sys.exit(code)


def check_asserts(optimize: int) -> None:
    """Checks that Python runs assert statements: timm checks models and options by them.

    Args:
        optimize: `sys.flags.optimize`.

    Raises:
        ConfigError: It does not.
    """
    if optimize:
        raise ConfigError('python -O removes checks that timm relies on: start without it, and unset PYTHONOPTIMIZE.')


def unexpected_error(error: Exception, processes: int) -> list[str]:
    """The lines of an unexpected error: its traceback, or one line if another process, or a loader's worker, failed."""
    from timm_alfa.data import worker_error

    died = worker_error(error)
    if died is not None:
        return [f'error: {died}']
    if processes > 1 and any(sign in str(error).lower() for sign in PEER_GONE):
        return ['another process has exited: stopping too']
    return traceback.format_exc().splitlines()
