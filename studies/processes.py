"""One job as a process: at most one at a time, found again by a runner that comes later."""
import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Optional

from studies import ROOT, records
from studies.jobs import Job, robust_command, train_command


class Workplace:
    """Where runs live.

    Args:
        output: Folder of run folders, logs and locks.
        runs: Folder of records.
        dataset_root: Folder with local copies of data sets.
        slots: Runs side by side.
    """

    def __init__(self, output: Path, runs: Path = records.RUNS, dataset_root: Optional[Path] = None, slots: int = 1):
        self.output, self.runs, self.dataset_root, self.slots = Path(output).resolve(), Path(runs), dataset_root, slots
        self.threads = max(1, len(os.sched_getaffinity(0)) // slots)

    def folder(self, job: Job) -> Path:
        return self.output / job.folder

    def log(self, job: Job) -> Path:
        return self.output / f'{job.folder}.log'

    def record(self, job: Job) -> Optional[dict]:
        return records.load(self.runs / f'{job.name}.json')

    def is_recorded(self, job: Job) -> bool:
        return records.matches(self.record(job), job)

    def next_command(self, job: Job) -> Optional[list[str]]:
        """What is left to be run; None: all is there to be recorded."""
        run = self.folder(job)
        if not (run / 'result.json').exists():
            return train_command(job, self.output, self.dataset_root)
        if job.recipe.robust and not (run / 'robust.json').exists():
            return robust_command(job, run, self.dataset_root)
        return None

    def environment(self, job: Job) -> dict[str, str]:
        """The launcher's part (precision) and a fair share of the threads."""
        share = {name: str(self.threads) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
        return {**os.environ, **share, 'ACCELERATE_MIXED_PRECISION': job.precision, 'PYTHONPATH': path}


class Slot:
    """A job under way, in a process of ours or of a runner that is gone.

    The process holds the job's lock itself (it inherits the open file), so that the lock lasts as long as it lives,
    whatever becomes of this runner.
    """

    def __init__(self, job: Job, place: Workplace):
        self.job, self.place = job, place
        self.process: Optional[subprocess.Popen] = None
        self.began = time.monotonic()
        self.code: Optional[int] = None
        place.output.mkdir(parents=True, exist_ok=True)
        self.lock = place.output / f'{job.folder}.lock'
        self.advance()

    @property
    def adopted(self) -> bool:
        """Whether another process of the same job holds the lock."""
        return self.process is None and self.code is None

    def advance(self) -> None:
        """Starts what is left of the job, unless it runs already."""
        handle = take_lock(self.lock)
        if handle is None:
            return
        try:
            command = self.place.next_command(self.job)
            if command is None:
                self.code = 0
                return
            self.robust = (self.place.folder(self.job) / 'result.json').exists()
            self.process = self._launch(command, handle)
        finally:
            os.close(handle)

    def _launch(self, command: list[str], handle: int) -> subprocess.Popen:
        mode = 'w' if self.robust else 'a'
        out = self.place.folder(self.job) / 'robust.out' if self.robust else self.place.log(self.job)
        with out.open(mode, encoding='utf-8') as stdout, self.place.log(self.job).open('a', encoding='utf-8') as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.place.environment(self.job), stdin=subprocess.DEVNULL, stdout=stdout,
                stderr=log, pass_fds=(handle,), start_new_session=True)
        os.ftruncate(handle, 0)
        os.write(handle, f'{process.pid}\n'.encode())
        return process

    def poll(self) -> bool:
        """Whether the job is done, for good or ill; `code` says which."""
        if self.code is not None:
            return True
        if self.process is None:
            self.advance()
            return self.code is not None
        code = self.process.poll()
        if code is None:
            return False
        if code == 0 and self.robust and not self._keep_robust():
            code = NO_RECORD
        if code == 0 and (self.place.folder(self.job) / 'result.json').exists():
            self.process = None
            self.advance()
            return self.code is not None
        self.code = code if code else STOPPED
        return True

    def _keep_robust(self) -> bool:
        """The last line of validate.py's output, as a file that is there only when it holds the accuracy."""
        run = self.place.folder(self.job)
        *_, last = ['', *(run / 'robust.out').read_text(encoding='utf-8').strip().splitlines()]
        try:
            found = json.loads(last).get('robust_top1') is not None
        except (ValueError, AttributeError):
            found = False
        if found:
            (run / 'robust.tmp').write_text(last, encoding='utf-8')
            os.replace(run / 'robust.tmp', run / 'robust.json')
        return found

    def progress(self) -> tuple[int, float]:
        """Epochs done, and seconds that all its rows took."""
        return epochs_done(self.place.folder(self.job) / 'summary.csv')

    def terminate(self) -> None:
        """Asks a process of ours to save its state and end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


NO_RECORD = 70  # validate.py ended well and said nothing of accuracy under attack
STOPPED = 143  # as a shell counts what SIGTERM ended: the run saved its state and can go on


def take_lock(path: Path) -> Optional[int]:
    """An open file that holds the lock, or None where somebody else does."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def is_locked(path: Path) -> bool:
    """Whether a process holds a job's lock."""
    if not path.exists():
        return False
    handle = take_lock(path)
    if handle is None:
        return True
    os.close(handle)
    return False


def epochs_done(summary: Path) -> tuple[int, float]:
    """Rows of a summary, and the seconds they took."""
    import csv
    try:
        with summary.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return 0, 0.0
    return len(rows), sum(float(row.get(key) or 0) for row in rows for key in ('seconds', 'eval_seconds'))
