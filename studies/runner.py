"""Runs many jobs, a few at a time."""

import sys
import time
from collections import deque
from contextlib import suppress
from typing import Optional

from studies import records
from studies.jobs import Job
from studies.worker import STOPPED, Worker, Workspace, is_locked
from timm_alfa.utils.signals import handled

POLL, REPORT = 0.2, 600.0  # seconds


class Runner:
    """Runs jobs until none is left.

    Args:
        jobs: In order.
        workspace: Where, and how many at a time.
    """

    def __init__(self, jobs: list[Job], workspace: Workspace):
        self.workspace = workspace
        self.total = len(jobs)
        todo = [job for job in jobs if not workspace.is_recorded(job)]
        # a job that is already running comes first: it takes a slot in any case
        self.todo = deque(sorted(todo, key=lambda job: not is_locked(workspace.lock(job))))
        self.done = self.total - len(self.todo)
        self.failed: list[tuple[Job, int]] = []
        self.workers: list[Worker] = []
        self.stopping = False

    def run(self) -> int:
        """Returns the number of jobs that failed, or 130 if a signal stopped the runner."""
        log(
            f'{self.total} runs, {self.done} of them recorded; {self.workspace.slots} at a time with '
            f'{self.workspace.threads} threads each'
        )
        with handled(self._stop):
            self._loop()
        for job, code in self.failed:
            log(f'failed: {job.name} (exit {code}), see {self.workspace.log(job)}')
        return 130 if self.stopping else len(self.failed)

    def _loop(self) -> None:
        reported = time.monotonic()
        while self.workers or (self.todo and not self.stopping):
            collected = self._collect()
            started = self._start()
            if collected or started or time.monotonic() - reported > REPORT:
                log(self.status())
                reported = time.monotonic()
            if self.stopping:
                self.workers = [worker for worker in self.workers if not worker.adopted]
            time.sleep(POLL)

    def _stop(self, number, frame) -> None:
        """On a signal, lets the runs save their state; the same command resumes them."""
        if not self.stopping:
            log('stopping: the current runs save their state')
        self.stopping = True
        for worker in self.workers:
            worker.terminate()

    def _start(self) -> bool:
        """Starts jobs while there is room."""
        started = False
        while self.todo and len(self.workers) < self.workspace.slots and not self.stopping:
            job = self.todo.popleft()
            if self.workspace.is_recorded(job):  # meanwhile, by another runner
                self.done += 1
                continue
            worker = Worker(job, self.workspace)
            if worker.adopted:
                log(f'{job.name} is already running: waiting for it')
            self.workers.append(worker)
            started = True
        return started

    def _collect(self) -> bool:
        """Records jobs that ended."""
        ended = [worker for worker in self.workers if worker.poll()]
        self.workers = [worker for worker in self.workers if worker not in ended]
        for worker in ended:
            if self.workspace.is_trained(worker.job):  # even if the attack failed
                self._record(worker.job)
            if worker.code == 0:
                self.done += 1
            elif worker.code != STOPPED or not self.stopping:
                self.failed.append((worker.job, worker.code))
                log(f'{worker.job.name} ended with exit {worker.code}:\n{self._log_tail(worker.job)}')
        return bool(ended)

    def _record(self, job: Job) -> None:
        record = records.make_record(job, self.workspace.folder(job), self.workspace.threads, self.workspace.slots)
        records.save(record, self.workspace.runs)
        score = record['test_top1'] if record['test_top1'] is not None else record['val_top1']
        log(f'{job.name}: top-1 {score:.2f} (validation {record["val_top1"]:.2f}, epoch {record["best_epoch"]})')

    def _log_tail(self, job: Job, lines: int = 5) -> str:
        try:
            text = self.workspace.log(job).read_text(encoding='utf-8', errors='replace').splitlines()
        except OSError:
            return ''
        return '\n'.join(f'    {line}' for line in text[-lines:])

    def status(self) -> str:
        """How far the runs are, and how long the rest takes."""
        running = [
            f'{worker.job.name} epoch {worker.progress()[0]}/{worker.job.options["epochs"]}' for worker in self.workers
        ]
        text = f'{self.done}/{self.total} done'
        if running:
            text += f'; {", ".join(running)}'
        left = self.seconds_left()
        if left is not None:
            text += f'; about {hours_and_minutes(left)} left'
        return text

    def seconds_left(self) -> Optional[float]:
        """An estimate from runs of the same group, recorded or in progress; None if there are none."""
        known = self._seconds_per_epoch()
        if not known:
            return None
        usual = sum(known.values()) / len(known)

        epochs = [(job, job.options['epochs']) for job in self.todo]
        for worker in self.workers:
            epochs.append((worker.job, max(0, worker.job.options['epochs'] - worker.progress()[0])))
        left = sum(known.get(job.group, usual) * count for job, count in epochs)
        return left / self.workspace.slots

    def _seconds_per_epoch(self) -> dict[str, float]:
        """Mean per group of jobs."""
        found: dict[str, list[float]] = {}
        for record in records.load_all(self.workspace.runs):
            if record['jobs'] == self.workspace.slots:
                group = record['name'].rpartition('-s')[0]
                found.setdefault(group, []).append(record['seconds'] / record['epochs'])
        for worker in self.workers:
            epochs, seconds = worker.progress()
            if epochs:
                found.setdefault(worker.job.group, []).append(seconds / epochs)
        return {group: sum(values) / len(values) for group, values in found.items()}


def hours_and_minutes(seconds: float) -> str:
    """A duration such as '2 h 05 min'."""
    minutes = round(seconds / 60)
    return f'{minutes // 60} h {minutes % 60:02} min'


def log(text: str) -> None:
    """Prints a line with the time to stderr, if anybody still reads it: the runs do not depend on that."""
    with suppress(OSError):
        print(f'[{time.strftime("%d %b %H:%M:%S")}] {text}', file=sys.stderr, flush=True)
