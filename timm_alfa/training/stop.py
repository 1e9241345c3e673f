"""Signals that ask a run to stop."""

import os
import signal
import time
from contextlib import AbstractContextManager, suppress
from typing import Optional

from timm_alfa.utils.distributed import is_main_process
from timm_alfa.utils.signals import handled

SAME_SIGNAL = 1.0  # seconds


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
        self._handled: Optional[AbstractContextManager] = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> 'StopFlag':
        self._handled = handled(self._catch)
        self._handled.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        if self._handled is not None:
            self._handled.__exit__(*exception)

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
