"""One optimizer update: batches in, result out."""

from typing import Any, Callable, Iterator, NamedTuple, Sequence

import torch
from timm.utils import dispatch_clip_grad

from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.training.metrics import Totals
from timm_alfa.training.run import Run
from timm_alfa.training.update.agreement import Flags, PendingFlags, Requests, exchange
from timm_alfa.utils.distributed import gather
from timm_alfa.utils.rng import seed_all


class Batch(NamedTuple):
    """One process's batch.

    Attributes:
        input: [B, C, H, W].
        target: Class indices [B], or soft targets [B, C].
        indices: Of its images in the training set.
    """

    input: torch.Tensor
    target: torch.Tensor
    indices: Sequence[int]


class Outcome(NamedTuple):
    """What came of an update.

    Attributes:
        update: Its index in the run.
        skipped_images: Number of images in a skipped update, over all processes; 0 if it was made.
        bad_images: Indices of the images of all processes whose loss is not finite, sorted.
    """

    update: int
    skipped_images: int = 0
    bad_images: tuple[int, ...] = ()


class StepResult(NamedTuple):
    """What a call of a step returns.

    Attributes:
        flags: What all processes agreed on.
        outcomes: Of the updates that are known to have ended since the call before, in order.
    """

    flags: Flags
    outcomes: tuple[Outcome, ...]


class TrainStep:
    """Forward, backward, and then the optimizer's step; skipped without a trace if a loss is not finite anywhere.

    A skipped update counts: for the schedule, and for a method that acts in every so many updates.

    Args:
        run: All that was built.
        totals: Adds up what the task reports for each batch.
    """

    def __init__(self, run: Run, totals: Totals):
        self.run, self.totals = run, totals
        self.statistics = RunningStatistics(run.task)
        self.clipped = run.task.clip_parameters(exclude_head=run.config.optim.clip_mode == 'agc')

    def __call__(self, window: Sequence[Batch], update: int, requests: Callable[[], Requests]) -> StepResult:
        """Makes one update. Every process calls it.

        Args:
            window: The batches of the update, one per accumulation step; each weighs the same.
            update: Index of the update in the run.
            requests: What this process wants; called after the last forward pass.
        """
        seed_all(self.run.config.run.seed, update, self.run.accelerator.process_index)
        self.statistics.remember()
        results, pending = self.forward_backward(window, requests)
        flags = pending.wait()
        if flags.bad:
            return StepResult(flags, (self.skip(window, update, bool(pending.own_bad)),))
        self.apply_gradients(update)
        for result, batch in zip(results, window, strict=True):
            self.totals.add(result, batch.target)
        return StepResult(flags, (Outcome(update),))

    def batches(self, loader) -> Iterator[Batch]:
        """A loader's batches with the indices of their images."""
        for input, target in loader:
            yield Batch(input, target, loader.last_indices)

    def is_idle(self) -> bool:
        """Whether all updates are known to have ended: each is reported when it is made."""
        return True

    def settle(self) -> tuple[Outcome, ...]:
        """Waits for all updates; what came of those that were not reported yet."""
        return ()

    def forward_backward(
        self, window: Sequence[Batch], requests: Callable[[], Requests]
    ) -> tuple[list[dict[str, torch.Tensor]], PendingFlags]:
        """Both passes over all batches: what the task returned for each, and the flags on their way."""
        accelerator, count = self.run.accelerator, len(window)
        results = []
        for batch in window[:-1]:
            with accelerator.no_sync(self.run.wrapped):
                results.append(self.forward(batch))
                self.backward(results[-1], count)
        results.append(self.forward(window[-1]))
        pending = exchange(accelerator, [result['loss'] for result in results], requests())
        self.backward(results[-1], count)
        return results, pending

    def forward(self, batch: Batch) -> dict[str, Any]:
        """What the task returns for a batch."""
        with self.run.accelerator.autocast():  # explicitly: FSDP2 goes without the one that accelerate adds
            return self.run.wrapped(batch.input, batch.target)

    def backward(self, result: dict[str, Any], count: int) -> None:
        """Adds the gradients of one of `count` batches: a short window's update weighs as much as any."""
        self.run.accelerator.backward(result['loss'] / count)

    def apply_gradients(self, update: int) -> None:
        """Clips and steps; then what follows a step: the method's projection, the EMA of the weights."""
        run, options = self.run, self.run.config.optim
        if options.clip_grad is not None:
            run.accelerator.unscale_gradients(run.optimizer)
            dispatch_clip_grad(self.clipped, options.clip_grad, options.clip_mode)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.task.post_step()
        if run.ema is not None:
            run.ema.update(run.model, step=update + 1)

    def skip(self, window: Sequence[Batch], update: int, own_bad: bool) -> Outcome:
        """Undoes what the passes left in gradients and running statistics, and names the images."""
        self.run.optimizer.zero_grad()
        self.run.task.forget_step()
        self.statistics.restore()
        self.run.task.count_update()
        images = [int(index) for batch in window for index in batch.indices]
        bad = gather(self.run.accelerator, images if own_bad else [])
        skipped = len(gather(self.run.accelerator, images))
        return Outcome(update, skipped, tuple(sorted(bad)))
