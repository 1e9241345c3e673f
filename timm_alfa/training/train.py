"""A run: start or resume, train, finish."""

import json
import shlex
import sys
from typing import Any, Generator

from timm_alfa.training.checkpoint.store import CheckpointStore
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.exit import before_work
from timm_alfa.training.finish import finish
from timm_alfa.training.metrics import Totals
from timm_alfa.training.run import Run
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.run_dir.folder import RunFolder
from timm_alfa.training.run_dir.lock import FolderLock, lock_folder
from timm_alfa.training.setup.trackers import start_trackers
from timm_alfa.training.start import begin_folder, is_record_of, restore
from timm_alfa.training.stop import StopFlag, Stopped
from timm_alfa.training.trainer import Trainer
from timm_alfa.training.update.graphs import on_stream
from timm_alfa.utils.console import logger
from timm_alfa.utils.distributed import on_main
from timm_alfa.utils.program import launch_command, spelling


def train(run: Run) -> dict[str, Any]:
    """Trains a run to its end and returns its record.

    Returns:
        The record of result.json; if a signal stopped the run, a record with `status` 'stopped' and what is known.

    Raises:
        AlfaError: The run cannot start, resume or continue.
    """
    with StopFlag() as stop, on_stream(run.stream):
        return exhaust(turns(run, stop))


def turns(run: Run, stop: StopFlag) -> Generator[None, None, dict[str, Any]]:
    """Trains a run to its end, and pauses after each update; what it returns, and raises, is that of `train`.

    Args:
        stop: Set by signals.
    """
    with FolderLock() as lock:
        # where the run lives, and where it stands
        with before_work():
            folder = RunFolder(on_main(run.accelerator, lock_folder, run.config, lock))
        states = CheckpointStore(folder.path / 'last', run.config.run.keep)
        totals = Totals(run.accelerator.device)
        state = restore(run, folder, totals)
        earlier = on_main(run.accelerator, folder.finished_result)
        if has_ended(run, folder, state, earlier):
            logger.info('resume: this run has ended; its record is in %s', folder.path)
            return earlier

        # start, train, finish
        trainer = Trainer(run, folder, states, state, totals, stop)
        start(trainer, earlier)
        try:
            yield from trainer.turns()
            return finish(trainer)
        except Stopped:
            return stopped(run, folder, state)


def exhaust(generator: Generator[None, None, Any]) -> Any:
    """Runs a generator to its end, and returns what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def has_ended(run: Run, folder: RunFolder, state: TrainState, earlier: dict[str, Any]) -> bool:
    """Whether nothing is left to train and the record in the folder describes them, with all scores that are wanted."""
    if not run.is_over(state):
        return False
    if run.config.data.score_unused and earlier.get('unused_top1') is None:
        return False
    return is_record_of(earlier, state, on_main(run.accelerator, folder.best_sha256))


def start(trainer: Trainer, earlier: dict[str, Any]) -> None:
    """Notes what starts the run, and writes what is known before the first update.

    Args:
        earlier: The record of an earlier end of this run; empty if there is none.
    """
    run, state, folder = trainer.run, trainer.state, trainer.folder
    if not run.is_over(state) or not state.commits:
        state.add_commit(run.commit)
    state.command = state.command or provenance.command(run.config.words)

    # the record will be removed: what it alone counts goes into a state first
    reads = 0 if earlier.get('test_top1') is None else earlier.get('test_reads', 1)
    if reads > state.test_reads:
        state.test_reads = reads
        trainer.save()

    on_main(run.accelerator, begin_folder, run, folder, state)
    start_trackers(run, folder.path, state)


def stopped(run: Run, folder: RunFolder, state: TrainState) -> dict[str, Any]:
    """Ends a run that a signal stopped: says how to resume it, and returns its record."""
    run.accelerator.end_training()
    processes = run.accelerator.num_processes
    logger.info(
        'stopped after update %d (epoch %d of %d); state saved. Resume %swith: %s',
        state.updates,
        min(state.epoch + 1, run.config.epochs),
        run.config.epochs,
        f'in {processes} processes, as you started them, ' if processes > 1 else '',
        resume_command(run, folder),
    )
    return dict(
        status='stopped',
        experiment=folder.path.name,
        epochs=run.config.epochs,
        epochs_done=state.epoch,
        updates=state.updates,
        run=str(folder.path),
    )


def resume_command(run: Run, folder: RunFolder) -> str:
    """The command that resumes a run in the same precision, with the same trackers."""
    trackers = run.config.run.log_with
    called = spelling('train')
    words = ['--resume', folder.path, *(('--log-with', *trackers) if trackers else ())]
    precision = run.accelerator.mixed_precision
    if run.accelerator.num_processes == 1 and precision == 'no':
        return shlex.join(map(str, (*called.start, *words)))
    return launch_command(*called.launch, *words, mixed_precision=precision, explicit=True)


def print_record(run: Run, result: dict[str, Any]) -> None:
    """Prints the record as one line on stdout, from the main process, for another program: not on a terminal."""
    if run.accelerator.is_main_process and not sys.stdout.isatty():
        print(json.dumps(result), flush=True)
