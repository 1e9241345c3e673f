"""How accelerate starts: over the processes that were launched, with what the loop does itself left to the loop."""

import os
import warnings

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import GradientAccumulationPlugin

from timm_alfa.errors import AlfaWarning, ConfigError, first_line
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.setup.fsdp import check_launch, check_sharding
from timm_alfa.training.setup.trackers import check_trackers
from timm_alfa.utils.distributed import launched_processes
from timm_alfa.utils.program import program


def create_accelerator(config: TrainConfig) -> Accelerator:
    """accelerate for a run, with its trackers.

    Raises:
        ConfigError: A tracker is not installed or would not start, a device does not exist, or weights cannot be
            sharded as requested.
    """
    check_trackers(config.run.log_with)
    warn_of_accumulation()
    accelerator = start_accelerate(log_with=list(config.run.log_with or ()) or None, project_dir=config.run.output)
    check_sharding(accelerator, compiles=config.model.torchcompile is not None)
    return accelerator


def start_accelerate(**arguments) -> Accelerator:
    """accelerate over all processes that were launched.

    Args:
        arguments: More arguments of `Accelerator`.

    Raises:
        ConfigError: It cannot start, would compile the whole task, or sees fewer processes than there are.
    """
    # running statistics are averaged before they are read: broadcasting them in every forward pass would cost time
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    # the loop weighs accumulated batches itself: accelerate would divide each loss once more
    accumulation = GradientAccumulationPlugin(num_steps=1)
    # without this, each process launched on a machine without a GPU would believe it is the only one
    cpu = not torch.accelerator.is_available()
    try:
        accelerator = Accelerator(
            cpu=cpu, kwargs_handlers=[ddp], gradient_accumulation_plugin=accumulation, **arguments
        )
    except (ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f'accelerate cannot start: {first_line(error)}.') from error
    check_launch(accelerator)
    check_compilation(accelerator)
    check_processes(accelerator)
    check_precision(accelerator)
    return accelerator


def check_compilation(accelerator: Accelerator) -> None:
    """Checks that accelerate would not compile the task as one piece.

    Raises:
        ConfigError: accelerate would compile the task as one piece.
    """
    backend = accelerator.state.dynamo_plugin.backend.value
    if backend != 'NO':
        raise ConfigError(
            f'accelerate launch --dynamo_backend {backend.lower()} compiles a task as one piece, which a search could '
            f'not enter: leave it out and pass --torchcompile {backend.lower()} to {program("train")}.'
        )


def check_precision(accelerator: Accelerator) -> None:
    """Checks that accelerate computes in the precision that it names.

    Raises:
        ConfigError: It would not: on a CPU it takes float32 for fp16, without a word.
    """
    if accelerator.mixed_precision == 'fp16' and accelerator.device.type == 'cpu':
        raise ConfigError('fp16 needs a GPU: on a CPU, use --mixed_precision bf16 or no.')


def check_processes(accelerator: Accelerator) -> None:
    """Checks that accelerate sees all processes that were launched.

    Raises:
        ConfigError: accelerate does not see all processes that were launched.
    """
    launched = launched_processes()
    if accelerator.num_processes != launched:
        raise ConfigError(
            f'{launched} processes were launched, but accelerate sees {accelerator.num_processes}: start them with '
            'accelerate launch or torchrun, and check that their devices exist.'
        )


def warn_of_accumulation() -> None:
    """Warns if accelerate is configured to accumulate gradients, which the loop does."""
    steps = os.environ.get('ACCELERATE_GRADIENT_ACCUMULATION_STEPS', '1')
    if steps != '1':
        warnings.warn(
            f'ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps} has no effect here: pass --grad-accum-steps {steps} to '
            f'{program("train")}.',
            AlfaWarning,
            stacklevel=2,
        )
