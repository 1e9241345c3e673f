"""Standard output and error of a command: their reader may leave, and their terminal may know ASCII alone."""

import errno
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

# A pipe without a reader, a terminal that was closed, a connection that was cut.
GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)


class TolerantStream:
    """A text stream whose reader may leave: what is written from then on is dropped.

    A run must not end because nobody reads its log any more.

    Args:
        stream: What is written to.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Sends the rest to nowhere, also what C code and child processes write to the same descriptor."""
        if error.errno not in GONE:
            raise error
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect_streams() -> None:
    """Lets a command outlive the readers of its output, and escapes what their encoding cannot hold."""
    for name in ('stdout', 'stderr'):
        stream: Any = getattr(sys, name)
        if isinstance(stream, TolerantStream):
            continue
        if stream is None:  # closed, as by `>&-`
            stream = open(os.devnull, 'w')  # noqa: SIM115  for as long as the process lives
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
        setattr(sys, name, TolerantStream(stream))
