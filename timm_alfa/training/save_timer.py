"""When a state is saved inside an epoch."""

import time

from timm_alfa.utils.text import Interval


class SaveTimer:
    """Counts updates or minutes since the last state.

    Args:
        interval: Between states.
        keeps_time: Whether this process's clock counts: the main process's does.
    """

    def __init__(self, interval: Interval, keeps_time: bool):
        self.interval, self.keeps_time = interval, keeps_time
        self.saved_at = time.monotonic()
        self.is_due = False

    def ends_with(self, updates: int) -> bool:
        """Whether the interval is over once so many updates are done."""
        if self.interval.updates:
            return updates % self.interval.updates == 0
        seconds = self.interval.seconds
        return self.keeps_time and seconds is not None and time.monotonic() - self.saved_at >= seconds

    def set_due(self) -> None:
        """All processes agreed to save; what puts it off does not cancel it."""
        self.is_due = True

    def restart(self) -> None:
        """A state was saved."""
        self.saved_at, self.is_due = time.monotonic(), False
