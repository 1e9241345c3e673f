"""What several processes do together."""

import os
from typing import TYPE_CHECKING, Any

from timm_alfa.errors import AlfaError, ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn


# What launchers set; empty ones are left behind by scripts that set them to nothing.
LAUNCHED = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


def drop_empty_variables() -> None:
    """Removes a launcher's variables that are empty: they mean that there is none."""
    for name in LAUNCHED:
        if os.environ.get(name) == '':
            del os.environ[name]


def launched_rank() -> int:
    """Which of the launched processes this is, by the launcher's environment: works before accelerate starts."""
    return _launched('RANK', 0)


def launched_processes() -> int:
    """How many processes were launched, by the launcher's environment."""
    return _launched('WORLD_SIZE', 1)


def _launched(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not value.isdecimal():
        raise ConfigError(f"the environment has {name}='{value}', which is not a count of processes: unset it.")
    return int(value)


def is_main_process() -> bool:
    """Whether this is the first process."""
    return launched_rank() == 0


def gather(accelerator, items: list) -> list:
    """The items of all processes in one list, on every process."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def broadcast(accelerator, module: 'nn.Module') -> None:
    """Copies the parameters and buffers of the main process to all others."""
    if accelerator.num_processes > 1:
        import torch

        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def sum_over_processes(tensor: 'Tensor') -> 'Tensor':
    """The sum of a tensor over all processes; with one process, the tensor itself. Every process calls it."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    if torch.distributed.get_world_size() == 1:
        return tensor
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total


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
