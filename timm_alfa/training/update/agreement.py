"""What all processes agree on in an update: whether its loss is finite, whether to stop, whether to save."""

from typing import NamedTuple, Optional, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.replay.norms import running_buffers
from timm_alfa.utils.fsdp import to_local


class Requests(NamedTuple):
    """What one process wants after an update."""

    stop: bool
    save: bool


class Flags(NamedTuple):
    """What all processes agree on after an update: each flag is set if any process set it."""

    bad: bool
    stop: bool
    save: bool


class PendingFlags(NamedTuple):
    """Flags that are still being exchanged.

    Attributes:
        flags: (3,), on the host once they have arrived.
        own_bad: Whether a loss of this process is not finite; on the device.
        arrived: Marks the arrival; None without a GPU, where they are there already.
    """

    flags: torch.Tensor
    own_bad: torch.Tensor
    arrived: Optional[torch.cuda.Event]

    def wait(self) -> Flags:
        """The flags; on a GPU this waits for the forward pass at most."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return Flags(*(bool(flag) for flag in self.flags.tolist()))


def exchange(accelerator: Accelerator, losses: Sequence[torch.Tensor], requests: Requests) -> PendingFlags:
    """Starts to exchange an update's flags: after its last forward pass, before the backward pass.

    They travel while the backward pass runs, so that a GPU need not be waited for. Every process calls it.

    Args:
        losses: Of the update's batches on this process.
        requests: Of this process.
    """
    on_gpu = accelerator.device.type == 'cuda'
    bad = ~torch.stack([loss.detach().float().reshape(()) for loss in losses]).isfinite().all()

    # built on the host first: one copy to the device, no wait
    flags = torch.tensor([0, requests.stop, requests.save], dtype=torch.int32)
    if on_gpu:
        flags = flags.pin_memory()
    flags = flags.to(accelerator.device, non_blocking=on_gpu)
    flags[0] = bad
    if accelerator.num_processes > 1:
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    if not on_gpu:
        return PendingFlags(flags, bad, None)

    on_host = torch.empty(3, dtype=torch.int32, pin_memory=True)
    on_host.copy_(flags, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return PendingFlags(on_host, bad, arrived)


@torch.no_grad()
def is_finite(module: nn.Module) -> bool:
    """Whether a module's trained weights and running statistics are finite: this process's part of them."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    tensors = [*trained, *running_buffers(module)]
    if not tensors:
        return True
    return bool(torch.stack([to_local(tensor).isfinite().all() for tensor in tensors]).all())
