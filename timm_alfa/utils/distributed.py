"""Small things of all processes together."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from timm_alfa.errors import AlfaError


def gather(accelerator, items: list) -> list:
    """The items of all processes in one list, on every process."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def broadcast(accelerator, module: nn.Module) -> None:
    """Gives every process the main one's parameters and buffers."""
    if accelerator.num_processes > 1:
        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def on_main(accelerator: Accelerator, action, *args) -> Any:
    """Runs an action on the main process alone; its result, or its error, is everyone's.

    Raises:
        AlfaError: What the action raised, on every process: none waits for one that has failed.
    """
    outcome = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action(*args)
        except AlfaError as error:
            error.shared = True
            if accelerator.num_processes == 1:
                raise
            outcome[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        outcome[1].shared = True  # pickling drops it
        raise outcome[1]
    return outcome[0]
