"""How a run starts: in a new folder, at its beginning or where its newest state stands."""

from pathlib import Path
from typing import Any, Optional

from timm_alfa.errors import CheckpointError
from timm_alfa.training.checkpoint.resume import check_options
from timm_alfa.training.checkpoint.save_load import load_state, read_state
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.exit import before_work
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.train_args import OF_ONE_START
from timm_alfa.training.run import Run
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.run_dir.folder import BEST, STATES, RunFolder, choose_folder
from timm_alfa.utils.console import logger
from timm_alfa.utils.distributed import on_main
from timm_alfa.utils.redact import redact


def restore(run: Run, folder: RunFolder, totals: Totals) -> TrainState:
    """Where the run stands: its newest usable state if --resume is given and there is one, else the beginning.

    Raises:
        CheckpointError: The state was made with other options, or cannot be loaded.
    """
    if run.config.run.resume is None:
        return TrainState()
    with before_work():
        found = find_state(run, folder.path)
    if found is None:
        logger.info("resume: no usable state in '%s': starting from the beginning", folder.path / STATES)
        return TrainState()

    # load it
    path, content, changed = found
    state = load_state(path, content, run, totals, changed)
    if changed:
        state.continued.append(changed_start(run, state, content))
    check_best(run, folder, state)

    logger.info(
        'resume: continuing after update %d (epoch %d of %d) from %s',
        state.updates,
        min(state.epoch + 1, run.config.epochs),
        run.config.epochs,
        path,
    )
    return state


def find_state(run: Run, folder: Path) -> Optional[tuple[Path, dict[str, Any], bool]]:
    """The newest usable state in a run's folder, its state.json, and whether its options differ; None without one.

    Raises:
        CheckpointError: Its state.json is invalid, or it was made with other options.
    """
    found = on_main(run.accelerator, read_state, folder / STATES)
    if found is None:
        return None
    path, content = found
    return path, content, check_options(content, run, redact(run.config.flat()))


def check_start(run: Run) -> Path:
    """Checks a run's folder and, with --resume, the options of its newest state, as `train` does. Writes nothing.

    Returns:
        The folder.

    Raises:
        AlfaError: `train` would raise it.
    """
    folder = choose_folder(run.config)
    if run.config.run.resume is not None:
        find_state(run, folder)
    return folder


def changed_start(run: Run, state: TrainState, content: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of a start with options other than those of the state."""
    precision = run.accelerator.mixed_precision
    return dict(
        epoch=state.epoch,
        command=provenance.command(run.config.words),
        mixed_precision=precision,
        before=content.get('mixed_precision', precision),
    )


def check_best(run: Run, folder: RunFolder, state: TrainState) -> None:
    """Makes a run select its best weights anew if those in its folder are not those that its state refers to.

    The run was killed after it wrote an epoch's best weights and before its state, or resumes from an older state.
    Trained again, and not bit for bit, that epoch may be worse than the best one before it, whose weights are gone.

    Raises:
        CheckpointError: No epoch is left to select from.
    """
    if state.best_sha256 in (None, on_main(run.accelerator, folder.best_sha256)):
        return
    if run.is_over(state):
        raise CheckpointError(
            f"'{folder.path / BEST}' does not hold the best weights that this run wrote (of epoch "
            f'{state.best_epoch}): put them back, or start another run.'
        )
    logger.warning(
        "warning: '%s' does not hold the weights of epoch %d that the state refers to: the best ones are selected "
        'anew, from epoch %d on',
        folder.path / BEST,
        state.best_epoch,
        state.epoch + 1,
    )
    state.forget_best()


def is_record_of(record: dict[str, Any], state: TrainState, best_sha256: Optional[str]) -> bool:
    """Whether a record describes this run as it stands: its weights, after the same changes of options.

    Args:
        best_sha256: Of the best weights in the run's folder; None if there are none.
    """
    if best_sha256 is None or record.get('checkpoint_sha256') != best_sha256:
        return False
    recorded = [start['epoch'] for start in record.get('continued', ())]
    return recorded == [start['epoch'] for start in state.continued]


def resolved_values(run: Run, folder: RunFolder) -> dict[str, Any]:
    """What options that are unset were resolved to. The options themselves stay unset: a run that reads them with
    another batch size or model derives them anew.
    """
    inputs = run.input_config
    values = dict(
        experiment=folder.path.name,
        num_classes=run.data.num_classes,
        lr=run.lr,
        in_chans=inputs['input_size'][0],
        img_size=inputs['input_size'][-1],
        mean=list(inputs['mean']),
        std=list(inputs['std']),
        interpolation=inputs['interpolation'],
        crop_pct=inputs['crop_pct'],
        validation_batch_size=run.config.data.batch_size,
    )
    if run.config.schedule.sched == 'multistep':
        values['decay_milestones'] = [run.config.epochs / 4, run.config.epochs * 3 / 4]
    options = run.config.flat()
    return {key: value for key, value in values.items() if options[key] is None}


def begin_folder(run: Run, folder: RunFolder, state: TrainState) -> None:
    """Writes what is known before the first update."""
    folder.create()
    if not run.is_over(state):
        folder.remove_result()
    logger.info('run: %s', folder.path)

    # args.yaml
    options = {key: value for key, value in run.config.flat().items() if key not in OF_ONE_START}
    environment = provenance.environment(run.accelerator, state.commit, state.command)
    environment['loader'] = run.data.loader  # what 'auto' was resolved to: another loader evaluates other crops
    environment['resolved'] = resolved_values(run, folder)
    folder.save_args(redact(options), redact(environment))

    # config.json
    inputs = {key: run.input_config[key] for key in ('input_size', 'mean', 'std', 'interpolation', 'crop_pct')}
    tag = f'{run.config.task.task}_{run.config.data.short_name}'
    folder.save_config(run.saved_model, dict(tag=tag), inputs, run.data.class_names)

    if state.rows:
        folder.save_summary(state.rows)
