"""Many jobs, a few at a time."""
import signal
import sys
import time
from collections import deque
from typing import Optional

from studies import records
from studies.jobs import Job
from studies.processes import STOPPED, Slot, Workplace, is_locked

POLL, REPORT = 0.2, 600.0  # seconds


class Runner:
    """Runs jobs until none is left.

    Args:
        jobs: In order.
        place: Where, and how many at a time.
    """

    def __init__(self, jobs: list[Job], place: Workplace):
        self.place, self.total = place, len(jobs)
        self.todo = deque(sorted((job for job in jobs if not place.is_recorded(job)), key=self._rank))
        self.done, self.failed = self.total - len(self.todo), []
        self.slots: list[Slot] = []
        self.stopping = False

    def _rank(self, job: Job) -> bool:
        """What already runs comes first: it takes a slot either way."""
        return not is_locked(self.place.output / f'{job.folder}.lock')

    def run(self) -> int:
        """Returns the number of jobs that failed; 130 where a signal ended it."""
        say(f'{self.total} runs, {self.done} of them recorded; {self.place.slots} at a time with '
            f'{self.place.threads} threads each')
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._loop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        for job, code in self.failed:
            say(f'failed: {job.name} (exit {code}), see {self.place.log(job)}')
        return 130 if self.stopping else len(self.failed)

    def _loop(self) -> None:
        reported = time.monotonic()
        while self.slots or (self.todo and not self.stopping):
            changed = self._collect() | self._fill()
            if changed or time.monotonic() - reported > REPORT:
                say(self.status())
                reported = time.monotonic()
            if self.stopping:
                self.slots = [slot for slot in self.slots if not slot.adopted]
            time.sleep(POLL)

    def _stop(self, number, frame) -> None:
        """The first signal lets the runs save their state; they go on with the same command."""
        if not self.stopping:
            say('stopping: the runs under way save their state')
        self.stopping = True
        for slot in self.slots:
            slot.terminate()

    def _fill(self) -> bool:
        """Starts jobs while there is room."""
        started = False
        while self.todo and len(self.slots) < self.place.slots and not self.stopping:
            job = self.todo.popleft()
            if self.place.is_recorded(job):  # by another runner, meanwhile
                self.done += 1
                continue
            slot = Slot(job, self.place)
            if slot.adopted:
                say(f'{job.name} is already under way: waiting for it')
            self.slots.append(slot)
            started = True
        return started

    def _collect(self) -> bool:
        """Records jobs that ended."""
        ended = [slot for slot in self.slots if slot.poll()]
        self.slots = [slot for slot in self.slots if slot not in ended]
        for slot in ended:
            if (self.place.folder(slot.job) / 'result.json').exists():  # also where only the attack failed
                self._record(slot.job)
            if slot.code == 0:
                self.done += 1
            elif slot.code != STOPPED or not self.stopping:
                self.failed.append((slot.job, slot.code))
                say(f'{slot.job.name} ended with exit {slot.code}:\n' + tail(self.place, slot.job))
        return bool(ended)

    def _record(self, job: Job) -> None:
        record = records.make_record(job, self.place.folder(job), self.place.threads, self.place.slots)
        records.save(record, self.place.runs)
        score = record['test_top1'] if record['test_top1'] is not None else record['val_top1']
        say(f"{job.name}: top-1 {score:.2f} (validation {record['val_top1']:.2f}, epoch {record['best_epoch']})")

    def status(self) -> str:
        """Where things stand, and how long the rest takes."""
        running = ', '.join(f"{slot.job.name} epoch {slot.progress()[0]}/{slot.job.options['epochs']}"
                            for slot in self.slots)
        left = self.seconds_left()
        eta = '' if left is None else f'; about {clock(left)} left'
        return f'{self.done}/{self.total} done' + (f"; {running}" if running else '') + eta

    def seconds_left(self) -> Optional[float]:
        """From what like runs took, recorded or under way; None while nothing is known."""
        known = self._seconds_per_epoch()
        if not known:
            return None
        usual = sum(known.values()) / len(known)
        cost = lambda job, epochs: known.get(job.group, usual) * epochs  # noqa: E731
        left = sum(cost(job, job.options['epochs']) for job in self.todo)
        left += sum(cost(s.job, max(0, s.job.options['epochs'] - s.progress()[0])) for s in self.slots)
        return left / self.place.slots

    def _seconds_per_epoch(self) -> dict[str, float]:
        """By group of jobs."""
        found: dict[str, list[float]] = {}
        for record in records.load_all(self.place.runs):
            if record['jobs'] == self.place.slots:
                found.setdefault(record['name'].rpartition('-s')[0], []).append(record['seconds'] / record['epochs'])
        for slot in self.slots:
            epochs, seconds = slot.progress()
            if epochs:
                found.setdefault(slot.job.group, []).append(seconds / epochs)
        return {group: sum(values) / len(values) for group, values in found.items()}


def tail(place: Workplace, job: Job, lines: int = 5) -> str:
    """The end of a job's log."""
    try:
        text = place.log(job).read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return ''
    return '\n'.join(f'    {line}' for line in text[-lines:])


def clock(seconds: float) -> str:
    """Hours and minutes."""
    minutes = round(seconds / 60)
    return f'{minutes // 60} h {minutes % 60:02} min'


def say(text: str) -> None:
    print(f"[{time.strftime('%d %b %H:%M:%S')}] {text}", file=sys.stderr, flush=True)
