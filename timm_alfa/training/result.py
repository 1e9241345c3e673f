"""The record of a finished run: what result.json and the last line of stdout hold."""

import statistics
from dataclasses import asdict
from typing import Any

from timm_alfa.training.checkpoint.save_load import skipped_images
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.run import Run
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.run_dir.folder import BEST, RunFolder
from timm_alfa.utils.distributed import on_main
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.redact import redact


def make_record(
    run: Run, folder: RunFolder, state: TrainState, scores: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """The record, without secrets. Every process calls it.

    Args:
        scores: Of the best checkpoint on the test split and the unused images; None where there are none.
        seconds: Time of the whole run.
    """
    record = dict(
        status='finished',
        experiment=folder.path.name,
        **_about_method(run, state),
        **_about_data(run),
        best_epoch=state.best_epoch,
        **state.best,
        val_correct=None if state.best_correct is None else asdict(state.best_correct),
        **scores,
        test_split=run.data.test_split,
        robust_top1=None,
        **run.task.result_entries(),
        **_about_cost(run, state, seconds),
        **_about_history(run, state),
        test_reads=state.test_reads + (scores['test_top1'] is not None),
        checkpoint=BEST,
        checkpoint_sha256=on_main(run.accelerator, sha256_of, folder.path / BEST),
        run=str(folder.path),
    )
    return redact(record)


def _about_method(run: Run, state: TrainState) -> dict[str, Any]:
    config = run.config
    return dict(
        model=config.model.model,
        task=config.task.task,
        task_options=_task_options(config),
        blocks=run.blocks,
        seed=config.run.seed,
        epochs=config.epochs,
        epochs_done=state.epoch,
        batch_size=run.effective_batch,
        lr=run.lr,
    )


def _task_options(config: TrainConfig) -> dict[str, Any]:
    """The task's options by their own names, without its prefix."""
    if not config.task_prefix:
        return {}
    prefix = config.task_prefix.replace('-', '_') + '_'
    return {key.removeprefix(prefix): value for key, value in config.flat().items() if key.startswith(prefix)}


def _about_data(run: Run) -> dict[str, Any]:
    config, data = run.config.data, run.data
    return dict(
        dataset=config.name,
        num_classes=data.num_classes,
        train_images=data.train_images,
        val_images=data.val_images,
        val_split=data.val_split,
        test_images=data.test_images,
        labels_sha256=data.info.labels_sha256,
    )


def _about_cost(run: Run, state: TrainState, seconds: float) -> dict[str, Any]:
    durations = [row['seconds'] for row in state.rows if row['seconds'] is not None]
    rates = [row['images_per_second'] for row in state.rows if row['images_per_second']]
    return dict(
        seconds=seconds,
        seconds_per_epoch=statistics.median(durations),
        images_per_second=statistics.median(rates) if rates else None,
        params=sum(p.numel() for p in run.model.parameters()),
        mixed_precision=run.accelerator.mixed_precision,
        num_processes=run.accelerator.num_processes,
        runs_together=run.together,
        cuda_graph=run.config.model.cuda_graph,
        channels_last=run.config.model.channels_last,
        device=provenance.device_name(run.accelerator.device),
    )


def _about_history(run: Run, state: TrainState) -> dict[str, Any]:
    skipped = skipped_images(run)
    return dict(
        versions=provenance.versions(),
        commit=state.commit,
        command=state.command,
        continued=state.continued,
        skipped_updates=state.skipped_updates,
        skipped_images=sum(len(indices) for indices in skipped.values()),
    )
