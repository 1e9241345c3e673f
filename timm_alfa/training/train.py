"""A whole run: choose the folder, begin or go on, train, finish."""

import json
import shlex
from typing import Any, Optional

from timm_alfa.errors import CheckpointError
from timm_alfa.training.agreement import StopFlag
from timm_alfa.training.checkpoint.resume import check_options
from timm_alfa.training.checkpoint.save_load import load_state, read_state
from timm_alfa.training.checkpoint.store import CheckpointStore
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.console import logger
from timm_alfa.training.finish import finish
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.train_args import OF_ONE_START
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.run_dir.folder import BEST, RunFolder
from timm_alfa.training.run_dir.lock import FolderLock, lock_folder
from timm_alfa.training.setup import Run
from timm_alfa.training.trainer import Stopped, Trainer
from timm_alfa.utils.distributed import on_main
from timm_alfa.utils.launcher import launch_command
from timm_alfa.utils.redact import redact


def train(run: Run) -> dict[str, Any]:
    """Trains a run to its end and returns its record.

    Returns:
        The record of result.json; of a run that a signal stopped, with `status` 'stopped' and only what is known.

    Raises:
        AlfaError: The run cannot begin or go on.
    """
    with FolderLock() as lock, StopFlag() as stop:
        folder = RunFolder(on_main(run.accelerator, lock_folder, run.config, lock))
        states = CheckpointStore(folder.path / 'last', run.config.run.keep)
        totals = Totals(run.accelerator.device)
        state = restore(run, folder, totals)
        known = on_main(run.accelerator, folder.finished_result)
        if state.epoch >= run.config.epochs and is_of(known, state, on_main(run.accelerator, folder.best_sha256)):
            logger.info('resume: this run has ended; its record is in %s', folder.path)
            return known
        reads = 0 if known.get('test_top1') is None else known.get('test_reads', 1)
        counted = reads > state.test_reads
        state.test_reads = max(state.test_reads, reads)
        if state.epoch < run.config.epochs or not state.commits:
            state.add_commit(run.commit)
        state.command = state.command or provenance.command()
        trainer = Trainer(run, folder, states, state, totals, stop)
        if counted:
            trainer.save()  # before the record goes, which alone told of it
        on_main(run.accelerator, begin_folder, run, folder, state)
        start_trackers(run, folder)
        try:
            trainer.fit()
            return finish(run, folder, state, trainer)
        except Stopped:
            return stopped(run, folder, state)


def restore(run: Run, folder: RunFolder, totals: Totals) -> TrainState:
    """Where the run stands: the newest usable state if one was asked for and is there, else the start.

    Raises:
        CheckpointError: The state was made with other options, or cannot be loaded.
    """
    if run.config.run.resume is None:
        return TrainState()
    found = on_main(run.accelerator, read_state, folder.path / 'last')
    if found is None:
        logger.info("resume: no usable state in '%s': starting from the beginning", folder.path / 'last')
        return TrainState()
    changed = check_options(found[1], run, redact(run.config.flat()))
    state = load_state(*found, run, totals, changed)
    if changed:
        state.continued.append(
            dict(
                epoch=state.epoch,
                command=provenance.command(),
                mixed_precision=run.accelerator.mixed_precision,
                before=found[1].get('mixed_precision', run.accelerator.mixed_precision),
            )
        )
    check_best(run, folder, state)
    logger.info(
        'resume: going on after update %d (epoch %d of %d) from %s',
        state.updates,
        min(state.epoch + 1, run.config.epochs),
        run.config.epochs,
        found[0],
    )
    return state


def is_of(known: dict[str, Any], state: TrainState, best_sha256: Optional[str]) -> bool:
    """Whether a record is of this run as it stands: of the weights that are there, after the same changes."""
    return (
        best_sha256 is not None
        and known.get('checkpoint_sha256') == best_sha256
        and [each['epoch'] for each in known.get('continued', ())] == [each['epoch'] for each in state.continued]
    )


def check_best(run: Run, folder: RunFolder, state: TrainState) -> None:
    """Lets a run choose its best weights anew where those that lie there are not those that its state tells of.

    A run was killed after it wrote the best weights of an epoch and before its state, or goes on from an older state.
    Trained again, and not bit for bit, that epoch may be worse than the best one before it, whose weights are gone.

    Raises:
        CheckpointError: No epoch is left to choose from.
    """
    if state.best_sha256 in (None, on_main(run.accelerator, folder.best_sha256)):
        return
    if state.epoch >= run.config.epochs:
        raise CheckpointError(
            f"'{folder.path / BEST}' does not hold the best weights that this run wrote (of epoch "
            f'{state.best_epoch}): put them back, or begin another run.'
        )
    logger.warning(
        "warning: '%s' does not hold the weights of epoch %d that the state tells of: the best ones are "
        'chosen anew, from epoch %d on',
        folder.path / BEST,
        state.best_epoch,
        state.epoch + 1,
    )
    state.forget_best()


def start_trackers(run: Run, folder: RunFolder) -> None:
    """accelerate's trackers, with the options as their config."""
    if run.config.run.log_with:
        options = {
            key: value if isinstance(value, (int, float, str, bool)) else str(value)
            for key, value in redact(run.config.flat()).items()
        }
        run.accelerator.project_configuration.logging_dir = str(folder.path)  # known only now
        names = {'wandb': {'name': folder.path.name, 'dir': str(folder.path)}}
        run.accelerator.init_trackers(
            'timm_alfa',
            config=options,
            init_kwargs={name: names[name] for name in run.config.run.log_with if name in names},
        )


def begin_folder(run: Run, folder: RunFolder, state: TrainState) -> None:
    """Writes what is known before the first update."""
    folder.create()
    if state.epoch < run.config.epochs:
        folder.remove_result()
    logger.info('run: %s', folder.path)
    options = redact({key: value for key, value in run.config.flat().items() if key not in OF_ONE_START})
    environment = provenance.environment(run.accelerator, state.commit, state.command)
    environment['loader'] = run.data.loader  # what 'auto' came to: another one would evaluate other crops
    folder.save_args(options, redact(environment))
    tag = f'{run.config.task.task}_{run.config.data.short_name}'
    about = dict(tag=tag)
    inputs = {key: run.input_config[key] for key in ('input_size', 'mean', 'std', 'interpolation', 'crop_pct')}
    folder.save_config(run.saved_model, about, inputs, run.data.class_names)
    if state.rows:
        folder.save_summary(state.rows)


def stopped(run: Run, folder: RunFolder, state: TrainState) -> dict[str, Any]:
    """The record of a run that a signal ended early, and how to go on."""
    run.accelerator.end_training()
    words, precision = ('train.py', '--resume', folder.path), run.accelerator.mixed_precision
    if run.accelerator.num_processes == 1 and precision == 'no':
        command = shlex.join(map(str, ('python', *words)))
    else:
        command = launch_command(*words, mixed_precision=precision, explicit=True)
    logger.info(
        'stopped after update %d (epoch %d of %d); state saved. Go on with: %s',
        state.updates,
        min(state.epoch + 1, run.config.epochs),
        run.config.epochs,
        command,
    )
    return dict(
        status='stopped',
        experiment=folder.path.name,
        epochs=run.config.epochs,
        epochs_done=state.epoch,
        updates=state.updates,
        run=str(folder.path),
    )


def print_record(run: Run, result: dict[str, Any]) -> None:
    """The record as one line on stdout, from the main process."""
    if run.accelerator.is_main_process:
        print(json.dumps(result), flush=True)
