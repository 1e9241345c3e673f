"""Small things of all processes together."""
import torch
from torch import nn


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
