"""The signals that stop a run, or what runs them."""

import signal
from contextlib import contextmanager
from typing import Any, Callable, Iterator

# A closed terminal, and the warning that Slurm sends before the end of a job. Ignored ones stay so, as under nohup.
_UNLESS_IGNORED = (signal.SIGHUP, signal.SIGUSR1)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *_UNLESS_IGNORED)


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """While inside, these signals call a handler."""
    numbers = [each for each in STOP_SIGNALS if each not in _UNLESS_IGNORED or signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
