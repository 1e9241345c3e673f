"""What follows the last epoch: plots, the score of the best checkpoint on the test split, the record."""

import statistics
import time
from typing import Any, Optional

import torch

from timm_alfa.training.checkpoint.save_load import skipped_images
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.checkpoint.weights import load_weights, read_weights
from timm_alfa.training.console import logger
from timm_alfa.training.evaluate import evaluate
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.run_dir.folder import BEST, RunFolder
from timm_alfa.training.run_dir.plots import draw_plots
from timm_alfa.training.setup import Run
from timm_alfa.training.trainer import Stopped, Trainer
from timm_alfa.utils.distributed import broadcast, on_main
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import duration


def finish(run: Run, folder: RunFolder, state: TrainState, trainer: Trainer) -> dict[str, Any]:
    """Plots, the test score, result.json, and a closing line.

    Raises:
        Stopped: A signal broke the scoring off.
    """
    on_main(run.accelerator, plot, run, folder, state)
    test = score_best(run, folder, trainer)
    seconds = trainer.seconds_before + time.perf_counter() - trainer.began
    result = make_record(run, folder, state, test, seconds)
    on_main(run.accelerator, folder.save_result, result)
    run.accelerator.end_training()
    if result['skipped_images']:
        logger.warning('warning: %d images could not be read and were left out', result['skipped_images'])
    score = f', test top-1 {test["test_top1"]:.2f}' if test['test_top1'] is not None else ''
    logger.info(
        'done in %s: best validation top-1 %.2f in epoch %d%s; results in %s',
        duration(seconds),
        state.best['val_top1'],
        state.best_epoch,
        score,
        folder.path,
    )
    return result


def plot(run: Run, folder: RunFolder, state: TrainState) -> None:
    """curves.png, and the plots of the method."""
    draw_plots(folder.path, state.rows, state.best_epoch, folder.path.name, run.task.epoch_plots())


@torch.no_grad()
def score_best(run: Run, folder: RunFolder, trainer: Trainer) -> dict[str, Optional[float]]:
    """Scores the best checkpoint, as it lies on disk, on the test split: once, at the end.

    Raises:
        Stopped: A signal came; a run that goes on scores anew.
    """
    if run.data.test is None:
        return dict(test_top1=None, test_top5=None, test_loss=None)
    model = run.whole(run.saved_model)

    def load():
        load_weights(model, read_weights(folder.path / BEST), BEST)

    on_main(run.accelerator, load)
    broadcast(run.accelerator, model)
    metrics = evaluate(model, run.data.test, run.accelerator, trainer.stop)
    if trainer.asked_to_stop():  # they may be of a part
        raise Stopped
    return {f'test_{name}': metrics[name] for name in ('top1', 'top5', 'loss')}


def make_record(run: Run, folder: RunFolder, state: TrainState, test: dict, seconds: float) -> dict[str, Any]:
    """The record that result.json and the last line of stdout hold."""
    config, data, flat = run.config, run.data, run.config.flat()
    prefix = config.task_prefix.replace('-', '_') + '_'
    median = statistics.median(row['seconds'] for row in state.rows)
    rates = [row['images_per_second'] for row in state.rows if row['images_per_second']]
    return redact(
        dict(
            status='finished',
            experiment=folder.path.name,
            model=config.model.model,
            task=config.task.task,
            task_options={
                key.removeprefix(prefix): value
                for key, value in flat.items()
                if config.task_prefix and key.startswith(prefix)
            },
            blocks=run.blocks,
            dataset=config.data.name,
            num_classes=data.num_classes,
            seed=config.run.seed,
            epochs=config.epochs,
            epochs_done=state.epoch,
            batch_size=run.effective_batch,
            lr=run.lr,
            train_images=data.train_images,
            val_images=data.val_images,
            val_split=data.val_split,
            test_images=data.test_images,
            best_epoch=state.best_epoch,
            **state.best,
            **test,
            test_split=data.test_split,
            robust_top1=None,
            **run.task.result_entries(),
            seconds=seconds,
            seconds_per_epoch=median,
            images_per_second=statistics.median(rates) if rates else None,
            params=sum(p.numel() for p in run.model.parameters()),
            mixed_precision=run.accelerator.mixed_precision,
            num_processes=run.accelerator.num_processes,
            device=provenance.device_name(run.accelerator.device),
            versions=provenance.versions(),
            commit=state.commit,
            command=state.command,
            continued=state.continued,
            test_reads=state.test_reads + (test['test_top1'] is not None),
            skipped_updates=state.skipped_updates,
            skipped_images=sum(map(len, skipped_images(run).values())),
            checkpoint=BEST,
            checkpoint_sha256=on_main(run.accelerator, sha256_of, folder.path / BEST),
            run=str(folder.path),
        )
    )
