"""How a script ends: one line a fault, an exit code a shell can read, no process left waiting for another."""

import os
import sys
import traceback
from contextlib import contextmanager

from timm_alfa.errors import AlfaError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
PEER_GONE = (
    'connection closed by peer',
    'connection reset by peer',
    'broken pipe',
    'socket timeout',
    'remote process exited',
)


@contextmanager
def before_work():
    """Errors in here are about what was asked: all processes raise the same, and the exit code is 2."""
    try:
        yield
    except AlfaError as error:
        error.shared, error.exit_code = True, MISUSED
        raise


def run_main(main) -> None:
    """Runs a script's main and exits: 0 done, 1 failed on the way, 2 asked for wrongly, 130 a second Ctrl-C."""
    rank, processes = int(os.environ.get('RANK', '0')), int(os.environ.get('WORLD_SIZE', '1'))
    try:
        main()
        return
    except KeyboardInterrupt:
        code, lines = INTERRUPTED, []
    except AlfaError as error:
        code = getattr(error, 'exit_code', FAILED)
        shown = rank == 0 or not getattr(error, 'shared', False)
        lines = [f'error: {line}' for line in str(error).splitlines()] if shown else []
    except Exception as error:
        code, lines = FAILED, describe(error, processes)
    where = f'process {rank}: ' if processes > 1 and rank else ''
    sys.stderr.write(''.join(f'{where}{line}\n' for line in lines))
    sys.stderr.flush()
    sys.stdout.flush()
    if processes > 1:
        os._exit(code)  # leaving in the usual way would wait for processes that wait for this one
    sys.exit(code)


def describe(error: Exception, processes: int) -> list[str]:
    """An unexpected error: its traceback, or one line where another process, or one that reads images, failed."""
    from timm_alfa.data import worker_error

    died = worker_error(error)
    if died is not None:
        return [f'error: {died}']
    if processes > 1 and any(sign in str(error).lower() for sign in PEER_GONE):
        return ['another process has ended: stopping too']
    return traceback.format_exc().splitlines()
