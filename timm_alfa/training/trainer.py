"""The training loop: updates, epochs, and what is saved between them."""

import math
import time
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from timm.utils import dispatch_clip_grad, distribute_bn

from timm_alfa.errors import AlfaError
from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.training.agreement import Consensus, StopFlag, is_finite
from timm_alfa.training.checkpoint.save_load import save_state, with_norms
from timm_alfa.training.checkpoint.store import CheckpointStore, state_folders
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.checkpoint.weights import plain_state
from timm_alfa.training.console import Progress, Table, logger
from timm_alfa.training.evaluate import evaluate
from timm_alfa.training.metrics import Totals
from timm_alfa.training.run_dir.folder import BEST, LAST, RunFolder
from timm_alfa.training.setup import Run
from timm_alfa.utils.distributed import gather, on_main
from timm_alfa.utils.redact import redact
from timm_alfa.utils.rng import seed_all
from timm_alfa.utils.text import parse_interval


class Stopped(Exception):
    """A signal asked the run to end; its state is saved."""


class TrainingError(AlfaError):
    """Training cannot go on; every process raises it."""

    shared = True


class Trainer:
    """Turns a run, from wherever its state stands.

    Args:
        run: All that was built.
        folder: Where results go.
        states: Where states are saved.
        state: Where to go on.
        totals: Sums of the epoch at hand.
        stop: Set by signals.
    """

    def __init__(
        self, run: Run, folder: RunFolder, states: CheckpointStore, state: TrainState, totals: Totals, stop: StopFlag
    ):
        self.run, self.folder, self.states, self.state, self.stop = run, folder, states, state, stop
        self.config, self.accelerator = run.config, run.accelerator
        self.totals, self.options = totals, redact(run.config.flat())
        self.began, self.seconds_before = time.perf_counter(), state.seconds
        self.consensus = Consensus(self.accelerator)
        self.statistics = RunningStatistics(run.task)
        self.clipped = run.task.clip_parameters(exclude_head=self.config.optim.clip_mode == 'agc')
        self.interval = parse_interval(self.config.run.checkpoint_every)
        self.saved_at, self.owed = time.monotonic(), False
        batches = len(run.data.train)
        per_batch = self.config.data.batch_size * self.accelerator.num_processes
        self.images_per_epoch = min(batches * per_batch, run.data.train_images)
        done = state.epoch * self.images_per_epoch + state.batch * per_batch
        self.progress = Progress(
            self.images_per_epoch * self.config.epochs,
            done,
            self.config.run.log_interval,
            self.accelerator.is_main_process,
        )
        self.table = Table()

    def fit(self) -> None:
        """All epochs that are left.

        Raises:
            Stopped: After a signal, with the state saved.
            TrainingError: The loss was not finite too often in a row, or the weights are not.
            CheckpointError: The state could not be saved; the one before is still whole.
        """
        try:
            while self.state.epoch < self.config.epochs:
                self.progress.epoch(self.state.epoch + 1, self.config.epochs)
                self.train_epoch()
                self.finish_epoch()
                if self.state.epoch < self.config.epochs and self.asked_to_stop():
                    raise Stopped
        finally:
            self.progress.close()

    # an epoch

    def train_epoch(self) -> None:
        """The updates of the epoch at hand that are left."""
        run, state = self.run, self.state
        run.wrapped.train()
        run.data.train.set_epoch(state.epoch, state.batch)
        batches = self.indexed(run.data.train)
        began, at_start = time.perf_counter(), state.epoch_seconds
        # the rest of a window that a state cut short cannot be: states fall between updates
        while window := list(islice(batches, self.config.optim.grad_accum_steps)):
            self.update(window)
            state.batch += len(window)
            state.updates, state.lr = state.updates + 1, self.learning_rate
            self.schedule()
            state.epoch_seconds = at_start + time.perf_counter() - began
            self.after_update(len(window))

    def indexed(self, loader):
        """Batches with the indices of their images."""
        for input, target in loader:
            yield input, target, loader.last_indices

    def schedule(self) -> None:
        if self.run.schedule is not None:
            self.run.schedule.step_update(self.state.updates)

    def update(self, window: list[tuple]) -> None:
        """One optimizer update over a window of batches, each weighing the same; left out if a loss is not finite."""
        run, state = self.run, self.state
        seed_all(self.config.run.seed, state.updates, self.accelerator.process_index)
        self.statistics.remember()
        results = []
        for at, (input, target, _) in enumerate(window):
            last = at == len(window) - 1
            with nullcontext() if last else self.accelerator.no_sync(run.wrapped):
                with self.accelerator.autocast():  # accelerate's own, which FSDP2 goes without
                    result = run.wrapped(input, target)
                results.append(result)
                if last:
                    self.consensus.send([r['loss'] for r in results], bool(self.stop), self.wants_saving())
                # a short window at the epoch's end has a divisor of its own: its update weighs as much as any
                self.accelerator.backward(result['loss'] / len(window))
        self.flags = self.consensus.receive()
        if self.flags.bad:
            self.skip(window)
            return
        state.bad_in_a_row = 0
        self.step()
        for result, (_, target, _) in zip(results, window, strict=True):
            self.totals.add(result, target)

    def step(self) -> None:
        """Clips, steps, and what follows a step: the method's projection, the average of the weights."""
        run, options = self.run, self.config.optim
        if options.clip_grad is not None:
            self.accelerator.unscale_gradients(run.optimizer)
            dispatch_clip_grad(self.clipped, options.clip_grad, options.clip_mode)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.task.post_step()
        if run.ema is not None:
            run.ema.update(run.model, step=self.state.updates + 1)

    def skip(self, window: list[tuple]) -> None:
        """Leaves an update out: no trace in weights or statistics, a line in the log.

        Raises:
            TrainingError: It was one too many in a row.
        """
        state, options = self.state, self.config.run
        self.run.optimizer.zero_grad()
        self.statistics.restore()
        images = [int(index) for _, _, indices in window for index in indices]
        own = images if bool(self.consensus.own_bad) else []
        bad = sorted(gather(self.accelerator, own))
        state.skipped_updates += 1
        state.skipped_images += len(gather(self.accelerator, images))
        state.bad_in_a_row += 1
        shown = ', '.join(map(str, bad[:16])) + (f' and {len(bad) - 16} more' if len(bad) > 16 else '')
        logger.warning(
            'warning: the loss of update %d (epoch %d) is not finite: update left out; its training images: %s',
            state.updates + 1,
            state.epoch + 1,
            shown,
        )
        if state.bad_in_a_row >= options.nan_patience:
            raise TrainingError(
                f'the loss was not finite in {state.bad_in_a_row} updates in a row, up to update {state.updates + 1} '
                f'in epoch {state.epoch + 1}; the latest images were {shown}. {self.way_on()}'
            )

    def way_on(self) -> str:
        """What to change after a run that came apart, and from where it then goes on."""
        kept = state_folders(self.states.path)
        where = f"goes on from the last state, '{kept[-1]}'" if kept else 'starts again: there is no state yet'
        return (
            f'Lower --lr (it is {self.run.lr:.3g}), add --clip-grad 1 or --warmup-updates 200, or train in '
            f'bf16 or fp32; then --resume auto --resume-anyway {where}.'
        )

    @property
    def learning_rate(self) -> float:
        """The rate before layer decay, which a schedule applies."""
        group = self.run.optimizer.param_groups[0]
        return group['lr'] / (group.get('lr_scale', 1.0) if self.run.schedule is not None else 1.0)

    def wants_saving(self) -> bool:
        """Whether this update ends the interval between states (the main process's clock counts)."""
        if self.interval.updates:
            return (self.state.updates + 1) % self.interval.updates == 0
        return self.accelerator.is_main_process and time.monotonic() - self.saved_at >= self.interval.seconds

    def after_update(self, batches: int) -> None:
        """Counts the update, and saves or stops where it was agreed.

        Raises:
            Stopped: A signal came; the state is saved.
        """
        state = self.state
        images = min(batches * self.config.data.batch_size * self.accelerator.num_processes, self.images_per_epoch)
        state.epoch_images += images
        done = -(-state.batch // self.config.optim.grad_accum_steps)
        self.progress.update(images, f'{done}/{self.run.updates_per_epoch}')
        # a loss that is not finite may be the weights' fault: a state waits for the next that is; a signal does not
        self.owed |= self.flags.save
        if self.flags.stop or (self.owed and not state.bad_in_a_row):
            self.check_finite()
            self.save()
        if self.flags.stop:
            raise Stopped

    def save(self) -> None:
        """Writes the state."""
        self.state.seconds = self.seconds_before + time.perf_counter() - self.began
        save_state(self.states, self.run, self.state, self.totals, self.options)
        self.saved_at, self.owed = time.monotonic(), False

    def check_finite(self) -> None:
        """Sees to it that no file gets weights or running statistics that are not finite. Every process calls it.

        The loss of an update is that before its step: a gradient that is not finite shows only in the next one.

        Raises:
            TrainingError: There are some on any process; they will never be finite again.
        """
        if not all(gather(self.accelerator, [is_finite(self.run.task)])):
            raise TrainingError(
                f'after update {self.state.updates} in epoch {self.state.epoch + 1} weights or running statistics are '
                f'not finite: they are not saved. {self.way_on()}'
            )

    # between epochs

    def finish_epoch(self) -> None:
        """Evaluates, writes the epoch's row, the best and the last weights, and the state.

        Raises:
            TrainingError: The weights are not finite, or no loss is.
            Stopped: A signal broke the evaluation off; the state saved is that after the epoch's last update.
        """
        run, state = self.run, self.state
        self.check_finite()
        own = RunningStatistics(*with_norms(run))
        self.synchronise_statistics()
        row = self.row()
        if self.asked_to_stop():
            own.restore()  # a run that goes on averages them again, which need not give the same to the last bit
            self.save()
            raise Stopped
        if state.bad_in_a_row and not math.isfinite(row['val_loss']):
            raise TrainingError(
                f'epoch {state.epoch + 1} ended without a finite loss in training and in evaluation: '
                f'its weights are not saved. {self.way_on()}'
            )
        best = row['val_top1'] > state.best.get('val_top1', -1)
        state.rows.append(row)
        if best:
            state.best_epoch = state.epoch + 1
            state.best = {key: row[key] for key in ('val_top1', 'val_top5', 'val_loss')}
        state.epoch, state.batch, state.epoch_seconds, state.epoch_images = state.epoch + 1, 0, 0.0, 0
        self.totals = Totals(self.accelerator.device)
        # the best weights before the state that knows of them: a run killed in between chooses them again
        weights = plain_state(run.saved_model, keep=self.accelerator.is_main_process)
        on_main(self.accelerator, self.write_epoch, weights, best)
        self.table.row(row, best)
        self.accelerator.log({key: value for key, value in row.items() if value is not None}, step=state.epoch)
        self.save()

    def asked_to_stop(self) -> bool:
        """Whether any process has got a signal. Every process calls it."""
        return any(gather(self.accelerator, [bool(self.stop)]))

    def synchronise_statistics(self) -> None:
        """Averages running statistics over processes: they are read now."""
        processes = self.accelerator.num_processes
        if processes > 1:
            distribute_bn(self.run.model, processes, reduce=True)
            if self.run.ema is not None:
                distribute_bn(self.run.ema.module, processes, reduce=True)

    def row(self) -> dict[str, Any]:
        """The epoch's row of summary.csv."""
        run, state = self.run, self.state
        row: dict[str, Any] = {'epoch': state.epoch + 1, 'lr': state.lr}
        row.update(self.totals.means(self.accelerator))
        began = time.perf_counter()
        metrics = evaluate(run.whole(run.eval_model), run.data.val, self.accelerator, self.stop)
        row.update({f'val_{name}': metrics[name] for name in ('loss', 'top1', 'top5')})
        if run.ema is not None:
            plain = evaluate(run.whole(run.task.get_eval_model()), run.data.val, self.accelerator, self.stop)
            row.update({f'val_{name}_not_averaged': plain[name] for name in ('loss', 'top1')})
        row.update(run.task.epoch_metrics())
        row['skipped_updates'] = state.skipped_updates
        row['images_per_second'] = state.epoch_images / state.epoch_seconds if state.epoch_seconds else None
        row['seconds'], row['eval_seconds'] = state.epoch_seconds, time.perf_counter() - began
        return row

    def write_epoch(self, weights: dict[str, torch.Tensor], best: bool) -> None:
        """What the main process writes after an epoch."""
        if best:
            self.folder.save_model(weights, BEST)
            self.state.best_sha256 = self.folder.best_sha256()
        self.folder.save_model(weights, LAST)
        self.folder.save_summary(self.state.rows)
