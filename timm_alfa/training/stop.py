"""Signals that ask a run to stop."""

import os
import signal
import time
from contextlib import suppress
from typing import Optional

from timm_alfa.utils.distributed import is_main_process

SAME_SIGNAL = 1.0  # seconds
# A closed terminal, and the warning that Slurm sends before the end of a job. Ignored ones stay so, as under nohup.
UNLESS_IGNORED = (signal.SIGHUP, signal.SIGUSR1)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *UNLESS_IGNORED)


class Stopped(Exception):
    """A signal stopped the run; its state is saved."""


class StopFlag:
    """Set by any of `STOP_SIGNALS`; the loop stops after the current update. A second SIGINT stops at once.

    A terminal sends Ctrl-C to every process, and launchers forward it once more: what arrives within a second of the
    first signal counts as the same one.
    """

    def __init__(self):
        self.signal: Optional[int] = None
        self.at = 0.0
        self._handlers: dict = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> 'StopFlag':
        for number in STOP_SIGNALS:
            if number in UNLESS_IGNORED and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._handlers[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _catch(self, number, frame) -> None:
        # only a flag: saving inside a handler can hang or corrupt what is being written
        now = time.monotonic()
        if self.signal is None:
            self.signal, self.at = number, now
            if is_main_process():
                name = signal.Signals(number).name
                line = f'\n{name}: finishing the update, then saving (Ctrl-C again stops at once)\n'
                with suppress(OSError):  # the terminal may be gone
                    os.write(2, line.encode())
        elif number == signal.SIGINT and now - self.at > SAME_SIGNAL:
            raise KeyboardInterrupt
