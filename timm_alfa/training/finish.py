"""What follows the last epoch: plots, the score of the best checkpoint on the test split, the record."""

from typing import Any, Optional

import torch

from timm_alfa.training.checkpoint.weights import load_weights, read_weights
from timm_alfa.training.console import logger
from timm_alfa.training.evaluate import evaluate
from timm_alfa.training.result import make_record
from timm_alfa.training.run_dir.folder import BEST
from timm_alfa.training.run_dir.plots import draw_plots
from timm_alfa.training.stop import Stopped
from timm_alfa.training.trainer import Trainer
from timm_alfa.utils.distributed import broadcast, on_main
from timm_alfa.utils.text import duration


def finish(trainer: Trainer) -> dict[str, Any]:
    """Draws the plots, scores the best checkpoint on the test split, and writes result.json.

    Returns:
        What result.json holds.

    Raises:
        Stopped: A signal interrupted the scoring.
    """
    run, folder, state = trainer.run, trainer.folder, trainer.state
    on_main(run.accelerator, plot, trainer)
    test = score_best(trainer)
    seconds = trainer.seconds
    result = make_record(run, folder, state, test, seconds)
    on_main(run.accelerator, folder.save_result, result)
    run.accelerator.end_training()

    if result['skipped_images']:
        logger.warning('warning: %d images could not be read and were skipped', result['skipped_images'])
    score = '' if test['test_top1'] is None else f', test top-1 {test["test_top1"]:.2f}'
    logger.info(
        'done in %s: best validation top-1 %.2f in epoch %d%s; results in %s',
        duration(seconds),
        state.best['val_top1'],
        state.best_epoch,
        score,
        folder.path,
    )
    return result


def plot(trainer: Trainer) -> None:
    """Draws curves.png, and the plots of the method."""
    path, state = trainer.folder.path, trainer.state
    draw_plots(path, state.rows, state.best_epoch, title=path.name, plots=trainer.run.task.epoch_plots())


@torch.no_grad()
def score_best(trainer: Trainer) -> dict[str, Optional[float]]:
    """Scores the best checkpoint, as it is on disk, on the test split: once, at the end.

    Raises:
        Stopped: A signal came; the resumed run scores anew.
    """
    run = trainer.run
    if run.data.test is None:
        return dict(test_top1=None, test_top5=None, test_loss=None)
    model = run.whole(run.saved_model)

    def load():
        load_weights(model, read_weights(trainer.folder.path / BEST), BEST)

    on_main(run.accelerator, load)
    broadcast(run.accelerator, model)
    metrics = evaluate(model, run.data.test, run.accelerator, trainer.stop)
    if trainer.stop_requested():  # the metrics may be those of a part
        raise Stopped
    return {f'test_{name}': metrics[name] for name in ('top1', 'top5', 'loss')}
