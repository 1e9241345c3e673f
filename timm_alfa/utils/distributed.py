"""What several processes do together."""

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from timm_alfa.errors import AlfaError

if TYPE_CHECKING:
    from accelerate import Accelerator


def is_main_process() -> bool:
    """Whether this is the first process, by the launcher's environment: works before accelerate starts."""
    return int(os.environ.get('RANK', '0')) == 0


def gather(accelerator, items: list) -> list:
    """The items of all processes in one list, on every process."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def broadcast(accelerator, module: nn.Module) -> None:
    """Copies the parameters and buffers of the main process to all others."""
    if accelerator.num_processes > 1:
        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def on_main(accelerator: 'Accelerator', action, *args) -> Any:
    """Runs an action on the main process only, and returns its result or raises its error on every process.

    Raises:
        AlfaError: The action raised it. Every process raises it, so that none waits for one that has failed.
    """
    outcome: list[Any] = [None, None]  # the result, the error
    if accelerator.is_main_process:
        try:
            outcome[0] = action(*args)
        except AlfaError as error:
            error.shared = True
            if accelerator.num_processes == 1:
                raise
            outcome[1] = error
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(outcome)
    if outcome[1] is not None:
        outcome[1].shared = True  # pickling drops it
        raise outcome[1]
    return outcome[0]
