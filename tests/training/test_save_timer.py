"""When states are saved inside an epoch."""

import time

from timm_alfa.training.save_timer import SaveTimer
from timm_alfa.utils.text import Interval


def test_updates_are_counted_from_the_start_of_the_run():
    timer = SaveTimer(Interval(updates=3), keeps_time=False)
    assert [updates for updates in range(1, 10) if timer.ends_with(updates)] == [3, 6, 9]


def test_minutes_are_those_of_the_main_process(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    main, other = (SaveTimer(Interval(seconds=60), keeps_time=keeps_time) for keeps_time in (True, False))
    now = 159.0
    assert not main.ends_with(1)
    now = 160.0
    assert main.ends_with(2) and not other.ends_with(2)
    main.restart()
    assert not main.ends_with(3)


def test_what_is_due_stays_due_until_it_is_saved():
    timer = SaveTimer(Interval(updates=3), keeps_time=True)
    assert not timer.is_due
    timer.set_due()
    assert timer.is_due and timer.is_due
    timer.restart()
    assert not timer.is_due
