"""A training step that the host does not wait for: the device decides what an update does, and the host looks later."""

from collections import deque
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import torch

from timm_alfa.training.metrics import Totals
from timm_alfa.training.run import Run
from timm_alfa.training.update.agreement import Flags, Requests
from timm_alfa.training.update.device_update import DeviceUpdate
from timm_alfa.training.update.graphs import Graphs
from timm_alfa.training.update.step import Outcome, StepResult
from timm_alfa.utils.rng import seed_all

AHEAD = 16  # updates that the host may be ahead of the device


class Parts(NamedTuple):
    """What a batch is made of.

    Attributes:
        tensors: For `Loader.assemble`.
        indices: Of its images in the training set.
    """

    tensors: tuple[torch.Tensor, ...]
    indices: Sequence[int]


class InFlight(NamedTuple):
    """An update that the host has not looked at yet.

    Attributes:
        update: Its index in the run.
        indices: Of its images.
        bad: Whether its loss is not finite: a scalar on the host, once it has arrived.
        arrived: Marks the arrival; None without a GPU, where it is there already.
    """

    update: int
    indices: Sequence[int]
    bad: torch.Tensor
    arrived: Optional[torch.cuda.Event]


class DeviceStep:
    """Makes updates in one process, on a GPU as CUDA graphs, and reports what came of them some updates later.

    It takes the place of `TrainStep`. That an update was skipped, or one too many in a row, is noticed late: a skipped
    update leaves no trace.

    Args:
        run: All that was built.
        totals: Adds up what the task reports for each batch.
    """

    def __init__(self, run: Run, totals: Totals):
        self.run = run
        self.update = DeviceUpdate(run, totals)
        self.graphs = None
        if run.stream is not None:
            self.graphs = Graphs(self.whole, run.stream, run.task.is_settled)
        self.mailbox = Mailbox(self.update.bad)
        self.waiting: deque[InFlight] = deque()

    def batches(self, loader) -> Iterator[Parts]:
        """A loader's batches, in parts: what can be made on the device is made inside the update."""
        for tensors in loader.parts():
            yield Parts(tensors, loader.last_indices)

    def __call__(self, window: Sequence[Parts], update: int, requests: Callable[[], Requests]) -> StepResult:
        """Makes one update.

        Args:
            window: One batch.
            update: Index of the update in the run.
            requests: What this process wants.
        """
        (batch,) = window
        outcomes = self.arrived()
        self.update.rates.write()
        self.launch(batch, update)
        self.run.task.count_update()
        self.waiting.append(InFlight(update, batch.indices, *self.mailbox.send()))
        return StepResult(Flags(False, *requests()), (*outcomes, *self.arrived()))

    def launch(self, batch: Parts, update: int) -> None:
        """Starts an update on the device."""
        seed = (self.run.config.run.seed, update, self.run.accelerator.process_index)
        if self.graphs is None:
            seed_all(*seed)
            self.whole(*batch.tensors)
        else:
            self.graphs(batch.tensors, kind=self.run.task.perturbs(), seed=seed)

    def whole(self, *tensors: torch.Tensor) -> None:
        """The device's part of an update, from the parts of a batch on."""
        self.update(*self.run.data.train.assemble(*tensors))

    def arrived(self) -> tuple[Outcome, ...]:
        """What came of the updates that have ended; waits where the host is too far ahead."""
        outcomes = []
        while self.waiting and (len(self.waiting) >= AHEAD or is_there(self.waiting[0].arrived)):
            outcomes.append(self.outcome(self.waiting.popleft()))
        return tuple(outcomes)

    def is_idle(self) -> bool:
        """Whether the device has made all updates."""
        return not self.waiting or is_there(self.waiting[-1].arrived)

    def settle(self) -> tuple[Outcome, ...]:
        """Waits for all updates; what came of those that were not reported yet."""
        outcomes = [self.outcome(each) for each in self.waiting]
        self.waiting.clear()
        return tuple(outcomes)

    def outcome(self, sent: InFlight) -> Outcome:
        """What came of an update; waits for it."""
        if sent.arrived is not None:
            sent.arrived.synchronize()
        if not sent.bad.item():
            return Outcome(sent.update)
        images = tuple(sorted(int(index) for index in sent.indices))
        return Outcome(sent.update, skipped_images=len(images), bad_images=images)


class Mailbox:
    """Copies a scalar on the device to the host, without a wait.

    Args:
        scalar: The same tensor for all updates.
    """

    def __init__(self, scalar: torch.Tensor):
        self.scalar = scalar
        self.on_gpu = scalar.device.type == 'cuda'
        self.slots = torch.zeros(AHEAD, dtype=scalar.dtype, pin_memory=self.on_gpu)
        self.next = 0

    def send(self) -> tuple[torch.Tensor, Optional[torch.cuda.Event]]:
        """Where the present value arrives, and what marks the arrival; the place is used again `AHEAD` values later."""
        slot = self.slots[self.next]
        self.next = (self.next + 1) % AHEAD
        slot.copy_(self.scalar, non_blocking=self.on_gpu)
        if not self.on_gpu:
            return slot, None
        arrived = torch.cuda.Event()
        arrived.record()
        return slot, arrived


def is_there(arrived: Optional[torch.cuda.Event]) -> bool:
    """Whether an arrival has happened."""
    return arrived is None or arrived.query()
