"""The training loop: epochs, their updates, and what is saved between them."""

import math
import time
from itertools import islice
from typing import Any, Iterator, Sequence

import torch
from timm.utils import distribute_bn

from timm_alfa.errors import AlfaError
from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.training.checkpoint.save_load import save_state, with_norms
from timm_alfa.training.checkpoint.store import CheckpointStore, state_folders
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.checkpoint.weights import plain_state
from timm_alfa.training.class_scores import CLASS_SCORES, ClassScores
from timm_alfa.training.evaluate import evaluate
from timm_alfa.training.live import LiveMetrics, live_text
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.checks import starts_from_weights
from timm_alfa.training.run import Run
from timm_alfa.training.run_dir.folder import BEST, LAST, RunFolder
from timm_alfa.training.save_timer import SaveTimer
from timm_alfa.training.setup.trackers import tracked
from timm_alfa.training.stop import StopFlag, Stopped
from timm_alfa.training.update.agreement import Flags, Requests, is_finite
from timm_alfa.training.update.device_step import DeviceStep
from timm_alfa.training.update.step import Outcome, TrainStep
from timm_alfa.utils.bits import PackedBits
from timm_alfa.utils.console import Progress, Table, logger
from timm_alfa.utils.distributed import gather, on_main
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import parse_interval

SHOWN = 16  # images that a log line names


class TrainingError(AlfaError):
    """Training cannot continue; every process raises it."""

    shared = True


class Trainer:
    """Trains a run, from wherever its state stands to its last epoch.

    Args:
        run: All that was built.
        folder: Where results go.
        states: Where states are saved.
        state: Where the run stands.
        totals: Sums of the current epoch so far.
        stop: Set by signals.
    """

    def __init__(
        self, run: Run, folder: RunFolder, states: CheckpointStore, state: TrainState, totals: Totals, stop: StopFlag
    ):
        self.run, self.folder, self.states, self.state, self.stop = run, folder, states, state, stop
        self.config, self.accelerator = run.config, run.accelerator
        self.totals, self.options = totals, redact(run.config.flat())
        self.began, self.seconds_before = time.perf_counter(), state.seconds
        self.step = DeviceStep(run, totals) if self.config.model.cuda_graph else TrainStep(run, totals)
        self.timer = SaveTimer(parse_interval(self.config.run.checkpoint_every), self.accelerator.is_main_process)
        self.table = Table()
        self.live = LiveMetrics(totals)
        self.progress = Progress(
            total=run.images_per_epoch * self.config.epochs,
            done=state.epoch * run.images_per_epoch + state.batch * run.images_per_batch,
            log_interval=self.config.run.log_interval,
            active=self.accelerator.is_main_process,
        )

    def turns(self) -> Iterator[None]:
        """Trains all epochs that are left, and pauses after each update and where it would wait for the device.

        Raises:
            Stopped: After a signal, with the state saved.
            TrainingError: The loss was not finite too often in a row, or the weights are not.
            CheckpointError: The state could not be saved; the one before is still complete.
        """
        try:
            while not self.run.is_over(self.state):
                self.progress.epoch(self.state.epoch + 1, self.config.epochs)
                yield from self.train_epoch()
                self.finish_epoch()
                if not self.run.is_over(self.state) and self.stop_requested():
                    raise Stopped
            if self.state.epoch < self.config.epochs:
                self.report_early_end()
        finally:
            self.progress.close()

    @property
    def seconds(self) -> float:
        """Time of the whole run so far, in all processes that it was interrupted between."""
        return self.seconds_before + time.perf_counter() - self.began

    # the updates of an epoch

    def train_epoch(self) -> Iterator[None]:
        """Makes the updates of the current epoch that are left, and pauses after each."""
        run, state = self.run, self.state
        run.wrapped.train()
        run.data.train.set_epoch(state.epoch, state.batch)
        batches = self.batches(run.data.train)
        began, seconds_before = time.perf_counter(), state.epoch_seconds
        # windows always start where a state can: states fall between updates
        while window := list(islice(batches, self.config.optim.grad_accum_steps)):
            flags = self.update(window)
            self.count_update(len(window))
            state.epoch_seconds = seconds_before + time.perf_counter() - began
            self.after_update(flags)
            yield
        while not self.step.is_idle():
            yield
        self.settle()
        state.epoch_seconds = seconds_before + time.perf_counter() - began

    def batches(self, loader) -> Iterator[Any]:
        """What the step takes for each batch of a loader."""
        return self.step.batches(loader)

    def update(self, window: Sequence[Any]) -> Flags:
        """Makes one update, or skips it; what all processes agreed on."""
        result = self.step(window, self.state.updates, self.requests)
        for outcome in result.outcomes:
            self.count_outcome(outcome)
        return result.flags

    def settle(self) -> None:
        """Waits for all updates that were started."""
        for outcome in self.step.settle():
            self.count_outcome(outcome)

    def count_outcome(self, outcome: Outcome) -> None:
        """Counts what came of an update.

        Raises:
            TrainingError: It was skipped, and one too many in a row.
        """
        if outcome.skipped_images:
            self.report_skipped(outcome)
        else:
            self.state.bad_in_a_row = 0

    def requests(self) -> Requests:
        """What this process wants after the current update."""
        return Requests(stop=bool(self.stop), save=self.timer.ends_with(self.state.updates + 1))

    def report_skipped(self, outcome: Outcome) -> None:
        """Counts a skipped update and logs it.

        Raises:
            TrainingError: It was one too many in a row.
        """
        state = self.state
        state.skipped_updates += 1
        state.skipped_images += outcome.skipped_images
        state.bad_in_a_row += 1
        shown = ', '.join(map(str, outcome.bad_images[:SHOWN]))
        if len(outcome.bad_images) > SHOWN:
            shown += f' and {len(outcome.bad_images) - SHOWN} more'
        logger.warning(
            'warning: the loss of update %d (epoch %d) is not finite: update skipped; its training images: %s',
            outcome.update + 1,
            state.epoch + 1,
            shown,
        )
        if state.bad_in_a_row >= self.config.run.nan_patience:
            raise TrainingError(
                f'the loss was not finite in {state.bad_in_a_row} updates in a row, up to update {outcome.update + 1} '
                f'in epoch {state.epoch + 1}; the latest images were {shown}. {self.advice()}'
            )

    def count_update(self, batches: int) -> None:
        """Moves the run's position, its schedule and its progress bar past an update of so many batches."""
        run, state = self.run, self.state
        state.batch += batches
        state.updates += 1
        state.lr = run.current_lr
        if run.schedule is not None:
            run.schedule.step_update(state.updates)
        images = min(batches * run.images_per_batch, run.images_per_epoch)
        state.epoch_images += images
        done = -(-state.batch // self.config.optim.grad_accum_steps)
        numbers = self.live_numbers() if self.progress.is_due() else ''
        self.progress.update(images, f'{done}/{run.updates_per_epoch}', numbers)

    def live_numbers(self) -> str:
        """Logs the means over the latest updates to trackers, and returns them as text. The main process calls it."""
        state = self.state
        values = self.live.read()
        self.accelerator.log({**values, 'train/lr': state.lr, 'epoch': state.epoch}, step=state.updates)
        return live_text(values, state.lr)

    def after_update(self, flags: Flags) -> None:
        """Saves or stops, if that was agreed.

        Raises:
            Stopped: A signal came; the state is saved.
        """
        if flags.save:
            self.timer.set_due()
        # the weights may have caused a loss that is not finite: saving waits for the next finite one, stopping does not
        if flags.stop or self.timer.is_due:
            self.settle()
        if flags.stop or (self.timer.is_due and not self.state.bad_in_a_row):
            self.check_finite()
            self.save()
        if flags.stop:
            raise Stopped

    # between epochs

    def finish_epoch(self) -> None:
        """Evaluates, and writes the epoch's row, the best and the last weights, and the state.

        Raises:
            TrainingError: The weights are not finite, or no loss is.
            Stopped: A signal interrupted the evaluation; the state saved is that after the epoch's last update.
        """
        # evaluate, with running statistics averaged over processes
        self.check_finite()
        own_statistics = RunningStatistics(*with_norms(self.run))
        self.average_statistics()
        row = self.row()
        correct = row.pop('val_correct')
        if self.stop_requested():
            own_statistics.restore()  # the resumed run averages them again: averages of averages can differ in a bit
            self.save()
            raise Stopped
        self.check_losses(row)

        # count
        best = self.count_epoch(row, correct)
        self.totals.reset()
        self.live.restart()

        # write, the best weights before the state that refers to them: a run killed in between selects them again
        weights = plain_state(self.run.saved_model, keep=self.accelerator.is_main_process)
        on_main(self.accelerator, self.write_epoch, weights, best)
        self.table.row(row, best)
        self.check_strength(row)
        self.accelerator.log(tracked(row, self.run.task.epoch_plots()), step=self.state.updates)
        self.save()

    def average_statistics(self) -> None:
        """Averages running statistics over processes, in place."""
        processes = self.accelerator.num_processes
        if processes == 1:
            return
        distribute_bn(self.run.model, processes, reduce=True)
        if self.run.ema is not None:
            distribute_bn(self.run.ema.module, processes, reduce=True)

    def row(self) -> dict[str, Any]:
        """The epoch's row of summary.csv, and `val_correct`, which is not part of it."""
        state = self.state
        row: dict[str, Any] = {'epoch': state.epoch + 1, 'lr': state.lr}
        row.update(self.totals.means(self.accelerator))
        began = time.perf_counter()
        row.update(self.validation())
        row.update(self.run.task.epoch_metrics())
        row['skipped_updates'] = state.skipped_updates
        row['images_per_second'] = state.epoch_images / state.epoch_seconds if state.epoch_seconds else None
        row['seconds'], row['eval_seconds'] = state.epoch_seconds, time.perf_counter() - began
        return row

    def validation(self) -> dict[str, Any]:
        """Loss and accuracy on the validation split; of the EMA, if there is one, and of the trained weights."""
        run = self.run
        images, metric = run.data.info.val, self.config.selection.eval_metric
        scores = ClassScores(run.data.num_classes, self.accelerator.device) if metric in CLASS_SCORES else None
        metrics = evaluate(run.unsharded(run.eval_model), run.data.val, self.accelerator, self.stop, images, scores)
        columns = {f'val_{name}': metrics[name] for name in ('loss', 'top1', 'top5')}
        if scores is not None:
            columns[f'val_{metric}'] = scores.compute(self.accelerator)[metric]
        columns['val_correct'] = metrics['correct_images']
        if run.ema is not None:
            metrics = evaluate(run.unsharded(run.task.get_eval_model()), run.data.val, self.accelerator, self.stop)
            columns.update({f'val_{name}_not_averaged': metrics[name] for name in ('loss', 'top1')})
        return columns

    def count_epoch(self, row: dict[str, Any], correct: PackedBits) -> bool:
        """Moves the run's position to the next epoch; whether this one is the best so far.

        Args:
            row: The epoch's metrics.
            correct: Which validation images were classified correctly.
        """
        state, selection = self.state, self.config.selection
        best = not state.best or selection.score(row) > selection.score(state.best)
        if best:
            state.best_epoch = state.epoch + 1
            kept = dict.fromkeys(('val_top1', 'val_top5', 'val_loss', selection.metric.column))
            state.best = {key: row[key] for key in kept}
            state.best_correct = correct
        state.rows.append(row)
        state.epoch += 1
        state.batch, state.epoch_seconds, state.epoch_images = 0, 0.0, 0
        return best

    def write_epoch(self, weights: dict[str, torch.Tensor], best: bool) -> None:
        """Writes what the main process writes after an epoch."""
        if best:
            self.folder.save_model(weights, BEST)
            self.state.best_sha256 = self.folder.best_sha256()
        self.folder.save_model(weights, LAST)
        if self.config.selection.num_best > 1:
            kept = self.config.selection.best_epochs(self.state.rows)
            self.folder.save_among_best(weights, self.state.epoch, kept)
        self.folder.save_summary(self.state.rows)

    def report_early_end(self) -> None:
        """Logs why the run ends before its last epoch."""
        state, selection = self.state, self.config.selection
        logger.info(
            'early end after epoch %d of %d: no better %s in %d epochs',
            state.epoch,
            self.config.epochs,
            selection.metric.title,
            state.epoch - state.best_epoch,
        )

    # at any time

    def stop_requested(self) -> bool:
        """Whether any process has received a signal. Every process calls it."""
        return any(gather(self.accelerator, [bool(self.stop)]))

    def save(self) -> None:
        """Writes the state."""
        self.state.seconds = self.seconds
        save_state(self.states, self.run, self.state, self.totals, self.options)
        self.timer.restart()

    def check_finite(self) -> None:
        """Makes sure that no weights or running statistics are saved that are not finite. Every process calls it.

        An update's loss is that before its step: a gradient that is not finite shows in the next update only.

        Raises:
            TrainingError: Some are not, on any process; they will never be finite again.
        """
        if not all(gather(self.accelerator, [is_finite(self.run.task)])):
            raise TrainingError(
                f'after update {self.state.updates} in epoch {self.state.epoch + 1} weights or running statistics are '
                f'not finite: they are not saved. {self.advice()}'
            )

    def check_losses(self, row: dict[str, Any]) -> None:
        """Checks that the epoch's last update or its evaluation had a finite loss.

        Raises:
            TrainingError: Neither the epoch's last update nor its evaluation had a finite loss.
        """
        if self.state.bad_in_a_row and not math.isfinite(row['val_loss']):
            raise TrainingError(
                f'epoch {self.state.epoch + 1} ended without a finite loss in training and in evaluation: '
                f'its weights are not saved. {self.advice()}'
            )

    def check_strength(self, row: dict[str, Any]) -> None:
        """Warns, once in a run, of perturbations that do nothing or far too much.

        Args:
            row: The epoch's metrics, the last of the state's rows.
        """
        *before, now = [self.strength_warning(each) for each in self.state.rows]
        if now and not any(before):
            logger.warning('warning: epoch %d: %s', row['epoch'], now)

    def strength_warning(self, row: dict[str, Any]) -> str:
        """What is wrong with the strength of an epoch's perturbations; empty if nothing is, or if there are none."""
        rise = row.get('loss_rise')
        return '' if rise is None else self.run.task.strength_warning(rise)

    def advice(self) -> str:
        """What to change after a run that diverged, and where it then resumes."""
        kept = state_folders(self.states.path)
        where = f"resumes from the last state, '{kept[-1]}'" if kept else 'starts again: there is no state yet'
        settings = '; --config finetune/standard has one for weights that were trained before'
        known = settings if starts_from_weights(self.config) else ''
        return (
            f'Lower --lr (it is {self.run.lr:.3g}{known}), add --clip-grad 1 or --warmup-updates 200, or train in '
            f'bf16 or fp32; then --resume auto --resume-anyway {where}.'
        )
