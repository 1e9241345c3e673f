#!/usr/bin/env python3
"""Trains several jobs of `studies/run.py --together` in one process, in turns of one update.

On a GPU every update is a CUDA graph, and the runs overlap. On a CPU they are the runs that they are one by one.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Iterator, Sequence

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies.files import open_log
from studies.jobs import Job, train_command
from studies.recipes import RECIPES
from studies.worker import STOPPED, Workspace, take_lock
from timm_alfa.utils.signals import STOP_SIGNALS, handled


def train_in_groups(jobs: Sequence[Job], workspace: Workspace, size: int) -> bool:
    """Trains jobs that are not trained yet, group after group; what fails is left to the runner, which runs it alone.

    Args:
        size: Most runs in a process.

    Returns:
        Whether no signal stopped a group.
    """
    workspace.output.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not workspace.is_recorded(job) and not workspace.is_trained(job)]
    for group in groups(todo, size):
        locks = [take_lock(workspace.lock(job)) for job in group]
        free = [job for job, lock in zip(group, locks, strict=True) if lock is not None]
        try:
            if train_group(free, workspace):
                return False
        finally:
            for lock in locks:
                if lock is not None:
                    os.close(lock)
    return True


def groups(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Splits jobs into groups of one precision."""
    for _, same in groupby(sorted(jobs, key=lambda job: job.precision), key=lambda job: job.precision):
        found = list(same)
        for first in range(0, len(found), size):
            yield found[first : first + size]


def train_group(jobs: Sequence[Job], workspace: Workspace) -> bool:
    """Trains jobs in one process, and returns whether a signal stopped it. Its log is together.log."""
    if not jobs:
        return False
    words = [f'{job.recipe.name}:{job.seed}:{job.scale!r}:{job.precision}' for job in jobs]
    root = () if workspace.dataset_root is None else (str(workspace.dataset_root),)
    command = [sys.executable, str(Path(__file__).resolve()), str(workspace.output), ','.join(words), *root]
    with open_log(workspace.output / 'together.log', 'a') as log:
        process = subprocess.Popen(  # nosec B603  # a script of this repository, without a shell
            command, env=workspace.environment(jobs[0]), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        with passed_on(process) as received:
            code = process.wait()
    stopped = bool(received) or code == STOPPED or -code in STOP_SIGNALS
    if code and not stopped:
        print(f'a process with {len(jobs)} runs ended with {code}: see {log.name}; these jobs run one by one')
    return stopped


@contextmanager
def passed_on(process: subprocess.Popen) -> Iterator[list[int]]:
    """While inside, signals let a process save its runs and stop; yields those that came."""
    received: list[int] = []

    def handler(number, _):
        received.append(number)
        process.terminate()

    with handled(handler):
        yield received


def main() -> int:
    os.environ.setdefault('CUDA_DEVICE_MAX_CONNECTIONS', '32')  # a hardware queue for each run's stream
    import torch

    from timm_alfa.errors import AlfaError
    from timm_alfa.training.options.train_args import parse_args
    from timm_alfa.training.together import prepare_together, train_together
    from timm_alfa.utils.console import setup_logging

    # the jobs, as the runner named them
    output, words = Path(sys.argv[1]), sys.argv[2].split(',')
    root = Path(sys.argv[3]) if sys.argv[3:] else None
    jobs = []
    for word in words:
        name, seed, scale, precision = word.split(':')
        jobs.append(Job(RECIPES[name], int(seed), float(scale), precision))

    # their runs
    setup_logging()
    graph = ['--cuda-graph'] if torch.cuda.is_available() else []
    try:
        runs = prepare_together([parse_args([*train_command(job, output, root)[2:], *graph]) for job in jobs])
    except AlfaError as error:
        print(f'error: {error}: these jobs run one by one', file=sys.stderr)
        return 0
    results = train_together(runs)
    return STOPPED if any(isinstance(result, dict) and result['status'] == 'stopped' for result in results) else 0


if __name__ == '__main__':
    sys.exit(main())
