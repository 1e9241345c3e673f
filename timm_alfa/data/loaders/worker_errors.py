"""What torch reports when a worker process dies, as errors that say what to do."""

import time
from typing import Optional, Union

from timm_alfa.errors import DataError


def worker_error(error: BaseException) -> Optional[DataError]:
    """Returns the DataError for torch's report of a dead worker, or None for any other error.

    torch raises that report in a signal handler, wherever the main process happens to be: a training loop has to ask
    this of every RuntimeError that ends it.
    """
    lines = str(error).splitlines()
    if isinstance(error, RuntimeError) and lines and lines[0].startswith('DataLoader worker (pid'):
        return _died(lines[0].rstrip(' .'))
    return None


def connection_error(error: Union[ConnectionError, EOFError], patience: float = 2.0) -> Exception:
    """Returns the DataError for a worker that died before its batch was fetched: the connection breaks first.

    torch's report follows by a signal a moment later. It has to be awaited, or it would strike while the error is
    handled.

    Args:
        error: What reading from the connection raised.
        patience: Seconds to wait for the report.
    """
    if ' in DataLoader worker process ' in str(error):  # raised in a living worker, by what it read
        return error
    try:
        time.sleep(patience)
    except RuntimeError as report:
        return worker_error(report) or report
    return _died(f'DataLoader worker: {type(error).__name__}')


def _died(report: str) -> DataError:
    return DataError(
        f'{report}: a process that reads images died (out of memory, or killed). '
        'Try fewer --workers, or --workers 0 to see its own error.'
    )
