"""What follows the last epoch: plots, the scores of the best checkpoint, the record."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from timm_alfa.data.datasets.base import Subset
from timm_alfa.data.loaders.base import Loader
from timm_alfa.training.checkpoint.weights import load_weights, read_weights
from timm_alfa.training.evaluate import evaluate
from timm_alfa.training.options.selection import SelectionConfig
from timm_alfa.training.result import make_record
from timm_alfa.training.run_dir.folder import BEST
from timm_alfa.training.run_dir.plots import draw_plots
from timm_alfa.training.setup.trackers import track_picture
from timm_alfa.training.stop import Stopped
from timm_alfa.training.trainer import Trainer
from timm_alfa.utils.console import logger
from timm_alfa.utils.distributed import broadcast, on_main
from timm_alfa.utils.text import duration

PARTS = ('test', 'unused')
# What the record calls a score of a part, and what `evaluate` calls it.
SCORES = {'top1': 'top1', 'top5': 'top5', 'loss': 'loss', 'correct': 'correct_images'}


def finish(trainer: Trainer) -> dict[str, Any]:
    """Draws the plots, scores the best checkpoint, and writes result.json.

    Returns:
        What result.json holds.

    Raises:
        Stopped: A signal interrupted the scoring.
    """
    run, folder, state = trainer.run, trainer.folder, trainer.state
    on_main(run.accelerator, plot, trainer)
    scores = score_best(trainer)
    seconds = trainer.seconds
    result = make_record(run, folder, state, scores, seconds)
    on_main(run.accelerator, folder.save_result, result)
    run.accelerator.end_training()

    if result['skipped_images']:
        logger.warning('warning: %d images could not be read and were skipped', result['skipped_images'])
    shown = [f', {part} top-1 {scores[f"{part}_top1"]:.2f}' for part in PARTS if scores[f'{part}_top1'] is not None]
    logger.info(
        'done in %s: best validation top-1 %.2f in epoch %d%s%s; results in %s',
        duration(seconds),
        state.best['val_top1'],
        state.best_epoch,
        chosen_by(run.config.selection, state.best),
        ''.join(shown),
        folder.path,
    )
    return result


def chosen_by(selection: SelectionConfig, best: dict[str, float]) -> str:
    """What the best epoch was chosen by, in parentheses; empty if it is top-1."""
    metric = selection.metric
    return '' if selection.eval_metric == 'top1' else f' (chosen by {metric.title} {best[metric.column]:.4g})'


def plot(trainer: Trainer) -> None:
    """Draws curves.png, which trackers get, too, and the plots of the method."""
    path, state = trainer.folder.path, trainer.state
    draw_plots(path, state.rows, state.best_epoch, title=path.name, plots=trainer.run.task.epoch_plots())
    track_picture(trainer.run, path / 'curves.png', state.updates)


def score_best(trainer: Trainer) -> dict[str, Any]:
    """Scores the best checkpoint, as it is on disk, on the images that nothing was chosen by: once, at the end.

    Returns:
        For the test split and for the unused images their `PART_top1`, `PART_top5`, `PART_loss`, `PART_correct` (which
        images), and `unused_images`; None where there are none, or none were to be scored.

    Raises:
        Stopped: A signal came; the resumed run scores anew.
    """
    scores: dict[str, Any] = {f'{part}_{name}': None for part in PARTS for name in SCORES}
    scores['unused_images'] = None
    data = trainer.run.data
    if data.test is None and data.info.unused is None:
        return scores

    model = best_model(trainer)
    if data.test is not None:
        metrics = score(trainer, model, data.test, data.info.test)
        scores.update({f'test_{name}': metrics[key] for name, key in SCORES.items()})
    if data.info.unused is not None:
        metrics = score_unused(trainer, model, data.info.unused)
        scores.update({f'unused_{name}': metrics[key] for name, key in SCORES.items()})
        scores['unused_images'] = metrics['count']
    return scores


@torch.no_grad()
def best_model(trainer: Trainer) -> nn.Module:
    """The model with the best weights, as they are on disk."""
    run = trainer.run
    model = run.unsharded(run.saved_model)

    def load():
        load_weights(model, read_weights(trainer.folder.path / BEST), BEST)

    on_main(run.accelerator, load)
    broadcast(run.accelerator, model)
    return model


def score(trainer: Trainer, model: nn.Module, loader: Loader, images: Subset) -> dict[str, Any]:
    """What `evaluate` returns, as JSON holds it.

    Raises:
        Stopped: A signal came, so that the metrics may be those of a part.
    """
    metrics = evaluate(model, loader, trainer.run.accelerator, trainer.stop, images)
    if trainer.stop_requested():
        raise Stopped
    return {**metrics, 'correct_images': asdict(metrics['correct_images'])}


def score_unused(trainer: Trainer, model: nn.Module, images: Subset) -> dict[str, Any]:
    """As `score`, of the labeled training images that were neither trained nor validated on.

    Raises:
        Stopped: A signal came.
    """
    loader = trainer.run.data.create_loader(images)
    try:
        return score(trainer, model, loader, images)
    finally:
        loader.close()
