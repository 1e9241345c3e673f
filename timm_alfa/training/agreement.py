"""What may go wrong in an update: a loss that is not finite, a signal to stop. All processes decide alike."""

import os
import signal
import time
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.replay.norms import running_buffers
from timm_alfa.utils.distributed import is_main_process
from timm_alfa.utils.fsdp import to_local


class StopFlag:
    """Set by SIGTERM or SIGINT; the loop ends after the update at hand. A second SIGINT ends at once.

    A launcher hands on the Ctrl-C that a terminal has already sent to every process: what comes within a second of the
    first counts as the same one.
    """

    def __init__(self):
        self.signal, self.at = None, 0.0
        self._before = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> 'StopFlag':
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number, frame) -> None:
        # only a flag: saving inside a handler can hang or tear what is being written
        now = time.monotonic()
        if self.signal is None:
            self.signal, self.at = number, now
            if is_main_process():
                os.write(
                    2,
                    f'\n{signal.Signals(number).name}: finishing the update, then saving '
                    '(Ctrl-C again stops at once)\n'.encode(),
                )
        elif number == signal.SIGINT and now - self.at > 1:
            raise KeyboardInterrupt


class Flags(NamedTuple):
    """What all processes agree on after an update."""

    bad: bool
    stop: bool
    save: bool


class Consensus:
    """Flags of an update, each set if any process sets it.

    The flags travel while the backward pass runs, so that a GPU need not be waited for.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.event = torch.cuda.Event() if accelerator.device.type == 'cuda' else None

    def send(self, losses: list[torch.Tensor], stop: bool, save: bool) -> None:
        """Starts the exchange: after the last forward pass, before its backward pass."""
        bad = ~torch.stack([loss.detach().float().reshape(()) for loss in losses]).isfinite().all()
        # built on the host first: one copy to the device, no wait
        wishes = torch.tensor([0, stop, save], dtype=torch.int32)
        if self.event is not None:
            wishes = wishes.pin_memory().to(self.accelerator.device, non_blocking=True)
        else:
            wishes = wishes.to(self.accelerator.device)
        wishes[0] = bad
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(wishes, op=torch.distributed.ReduceOp.MAX)
        self.own_bad = bad
        if self.event is not None:
            self.flags = torch.empty(3, dtype=torch.int32, pin_memory=True)
            self.flags.copy_(wishes, non_blocking=True)
            self.event.record()
        else:
            self.flags = wishes

    def receive(self) -> Flags:
        """The flags; on a GPU waits for the forward pass at most."""
        if self.event is not None:
            self.event.synchronize()
        return Flags(*(bool(flag) for flag in self.flags.tolist()))


@torch.no_grad()
def is_finite(module: nn.Module) -> bool:
    """Whether the weights that train and the running statistics of a module are finite: this process's part of them."""
    parts = [*(p for p in module.parameters() if p.requires_grad), *running_buffers(module)]
    if not parts:
        return True
    return bool(torch.stack([to_local(part).isfinite().all() for part in parts]).all())
