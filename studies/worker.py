"""One job as a process, which a later runner finds again if its own is gone."""

import csv
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Optional

from studies import ROOT, records
from studies.files import open_log, open_no_follow, replace_text
from studies.jobs import Job, robust_command, train_command

NO_RECORD = 70  # validate.py succeeded but reported no accuracy under attack
STOPPED = 143  # 128 + SIGTERM, as in a shell: the run saved its state and can be resumed


class Workspace:
    """Where runs live.

    Args:
        output: Folder of run folders, logs and locks.
        runs: Folder of records.
        dataset_root: Folder with local copies of datasets.
        slots: Number of runs at a time.
    """

    def __init__(self, output: Path, runs: Path = records.RUNS, dataset_root: Optional[Path] = None, slots: int = 1):
        self.output = Path(output).resolve()
        self.runs = Path(runs)
        self.dataset_root = dataset_root
        self.slots = slots
        self.threads = max(1, len(os.sched_getaffinity(0)) // slots)

    def folder(self, job: Job) -> Path:
        """A job's run folder."""
        return self.output / job.folder

    def log(self, job: Job) -> Path:
        """A job's log."""
        return self.output / f'{job.folder}.log'

    def lock(self, job: Job) -> Path:
        """The file that a job's process holds locked."""
        return self.output / f'{job.folder}.lock'

    def is_trained(self, job: Job) -> bool:
        """Whether train.py has finished."""
        return (self.folder(job) / 'result.json').exists()

    def is_recorded(self, job: Job) -> bool:
        """Whether the job's record is there and complete."""
        return records.matches(records.load(self.runs / f'{job.name}.json'), job)

    def next_command(self, job: Job) -> Optional[list[str]]:
        """The next command to run; None if everything is ready to be recorded."""
        run = self.folder(job)
        if not self.is_trained(job):
            return train_command(job, self.output, self.dataset_root)
        if job.recipe.robust and not (run / 'robust.json').exists():
            return robust_command(job, run, self.dataset_root)
        return None

    def environment(self, job: Job) -> dict[str, str]:
        """What a launcher would set (precision), and a fair share of the threads."""
        threads = {name: str(self.threads) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
        return {**os.environ, **threads, 'ACCELERATE_MIXED_PRECISION': job.precision, 'PYTHONPATH': path}


class Worker:
    """A job in progress, in a process of this runner or of an earlier one.

    The process inherits the open lock file, so the lock lasts as long as the process, whatever happens to the runner.

    Args:
        job: What to run.
        workspace: Where.
    """

    def __init__(self, job: Job, workspace: Workspace):
        self.job, self.workspace = job, workspace
        self.process: Optional[subprocess.Popen] = None
        self.code: Optional[int] = None
        self.robust = False
        workspace.output.mkdir(parents=True, exist_ok=True)
        self.advance()

    @property
    def adopted(self) -> bool:
        """Whether another runner's process holds the job's lock."""
        return self.process is None and self.code is None

    def advance(self) -> None:
        """Starts the job's next command, unless a process is already running it."""
        handle = take_lock(self.workspace.lock(self.job))
        if handle is None:
            return
        try:
            command = self.workspace.next_command(self.job)
            if command is None:
                self.code = 0
                return
            self.robust = self.workspace.is_trained(self.job)
            self.process = self._launch(command, handle)
        finally:
            os.close(handle)

    def _launch(self, command: list[str], handle: int) -> subprocess.Popen:
        """Starts a process that shares the lock, and writes its id into the lock file."""
        log = self.workspace.log(self.job)
        out, mode = (self._robust_output(), 'w') if self.robust else (log, 'a')
        with open_log(out, mode) as stdout, open_log(log, 'a') as stderr:
            process = subprocess.Popen(  # nosec B603  # a script of this repository, without a shell
                command,
                cwd=ROOT,
                env=self.workspace.environment(self.job),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(handle,),
                start_new_session=True,
            )
        os.ftruncate(handle, 0)
        os.write(handle, f'{process.pid}\n'.encode())
        return process

    def poll(self) -> bool:
        """Whether the job has ended; `code` is then its exit status."""
        if self.code is not None:
            return True
        if self.process is None:
            self.advance()
            return self.code is not None
        code = self.process.poll()
        if code is None:
            return False

        # a command has ended: go to the next one, or report the status
        if code == 0 and self.robust and not self._keep_robust():
            code = NO_RECORD
        if code == 0 and self.workspace.is_trained(self.job):
            self.process = None
            self.advance()
            return self.code is not None
        self.code = code if code else STOPPED
        return True

    def _robust_output(self) -> Path:
        return self.workspace.folder(self.job) / 'robust.out'

    def _keep_robust(self) -> bool:
        """Stores the last line of validate.py's output as a file, if it holds the accuracy."""
        *_, last = ['', *self._robust_output().read_text(encoding='utf-8').strip().splitlines()]
        try:
            found = json.loads(last).get('robust_top1') is not None
        except (ValueError, AttributeError):
            found = False
        if found:
            replace_text(self.workspace.folder(self.job) / 'robust.json', last)
        return found

    def progress(self) -> tuple[int, float]:
        """Epochs done, and the seconds they took."""
        return epochs_done(self.workspace.folder(self.job) / 'summary.csv')

    def terminate(self) -> None:
        """Asks the process, if it is ours, to save its state and exit."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


def take_lock(path: Path) -> Optional[int]:
    """Opens and locks a file; None if another process holds the lock."""
    handle = open_no_follow(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock."""
    if not path.exists():
        return False
    handle = take_lock(path)
    if handle is None:
        return True
    os.close(handle)
    return False


def epochs_done(summary: Path) -> tuple[int, float]:
    """Number of rows in a summary.csv, and the seconds they took."""
    try:
        with summary.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return 0, 0.0
    return len(rows), sum(float(row.get(key) or 0) for row in rows for key in ('seconds', 'eval_seconds'))
