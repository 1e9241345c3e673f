"""What --cuda-graph cannot run, found before anything is written."""

from typing import Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from timm_alfa.errors import ConfigError
from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.tasks.base import MethodTask
from timm_alfa.utils import rng
from timm_alfa.utils.program import spelling


def check_graph(task: MethodTask, accelerator: Accelerator, input_size: tuple[int, int, int]) -> None:
    """Checks that updates of a task can be CUDA graphs, as far as it depends on the launch, the method and the model.

    Args:
        task: On its device, and tried in a step.
        accelerator: Of the run.
        input_size: Channels, height and width of an image.

    Raises:
        ConfigError: They cannot, for all the reasons that it names.
    """
    reasons = list(_launch_errors(accelerator))
    if task.why_no_graph():
        reasons.append(f'--cuda-graph cannot run this task: {task.why_no_graph()}. Leave it out.')
    if _draws(task.model, input_size, accelerator):
        reasons.append(
            '--cuda-graph cannot run a model that draws random numbers, such as dropout or stochastic depth: leave it '
            'out, or set --drop 0 --drop-path 0.'
        )
    if reasons:
        raise ConfigError(reasons)


def _launch_errors(accelerator: Accelerator) -> Iterator[str]:
    if accelerator.num_processes > 1 or accelerator.distributed_type != DistributedType.NO:
        start = ' '.join(spelling('train').start)
        yield f'--cuda-graph runs in one process: start it with {start}, or leave it out.'
    if accelerator.mixed_precision == 'fp16':
        yield '--cuda-graph cannot run in fp16, whose loss scale changes on the host: use --mixed_precision bf16.'


@torch.no_grad()
def _draws(model: nn.Module, input_size: tuple[int, int, int], accelerator: Accelerator) -> bool:
    """Whether a training pass of the model moves a random generator; it leaves no trace."""
    device, training = accelerator.device, model.training
    statistics, before = RunningStatistics(model), rng.states(device)
    try:
        with accelerator.autocast():
            model.train()(torch.zeros(2, *input_size, device=device))
        return not rng.same(before, rng.states(device))
    finally:
        rng.restore(before or {})
        statistics.restore()
        model.train(training)
