"""`timm_alfa.probe`: what a step of ALFA costs and does at each block, before any training."""

import math
from typing import Any, Callable, Optional, Sequence, Union

import torch
from torch import nn

from timm_alfa.blocks.spec import feature_shape
from timm_alfa.errors import ConfigError
from timm_alfa.options import parse_number
from timm_alfa.perturb.features import perturbations
from timm_alfa.perturb.strength import unit_lengths
from timm_alfa.probing.crossing import first_crossing
from timm_alfa.probing.no_trace import no_trace
from timm_alfa.probing.result import BlockProbe, ProbeResult
from timm_alfa.probing.tokens import gradient_of_tokens, prefix_tokens
from timm_alfa.replay import flops
from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.tasks import create_task
from timm_alfa.utils import pytree
from timm_alfa.utils.unwrap import unwrap

SIZES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def probe(
    model: nn.Module,
    *batch: Any,
    blocks: Union[str, Sequence[str]] = 'all',
    criterion: Optional[Callable] = None,
    call: Optional[Callable] = None,
    loss: Optional[Callable] = None,
    sizes: Sequence[float] = SIZES,
    gap: float = 0.05,
    steps: int = 5,
    norm: str = 'linf',
) -> ProbeResult:
    """Measures at each block how much a search of ALFA raises the loss, and what a training step with it would cost.

        result = timm_alfa.probe(model, input, target)
        print(result)

    The batch is run as in training: in training mode, with the batch's own statistics in batch norms. The model is left
    as it was: weights, gradients, running statistics and other buffers, the mode of each module; and so are the random
    generators.

    Args:
        model: Any classifier; with `call` or `loss`, any model.
        batch: Images [B, C, H, W], normalized, and their targets; with `call` or `loss`, whatever these take.
        blocks: Which features, as for `resolve_blocks`; each is perturbed on its own.
        criterion, call, loss: As for `create_task`.
        sizes: Step sizes to try, increasing, in multiples of the root mean square of each tensor of a feature.
        gap: Find the step size that raises the loss by this share: 0.05 is 5%.
        steps: K, steps of a search.
        norm: Of the steps, 'linf' or 'l2'.

    Returns:
        A row for each block. `print` shows a table; `to_dict` and `to_png` give JSON and a picture.

    Raises:
        ConfigError: An argument is not valid, or the clean loss of the batch is zero or not finite.
        BlockError: The spec names nothing in this model, or nothing of a feature reaches the loss.
    """
    model = unwrap(model)
    sizes, gap = _checked(sizes, gap, steps)
    options: dict[str, Any] = dict(blocks=blocks, unit='rms', steps=steps, norm=norm, step_size=sizes[0])
    task: Any = create_task('alfa', model, criterion, call=call, loss=loss, **options)
    if task.is_classifier and len(batch) != 2:
        raise ConfigError(
            f'the batch of a classifier is images and targets, and {len(batch)} arguments follow the model: pass '
            'probe(model, input, target), and everything else by name.'
        )

    with no_trace(model, task.objective.modules, pytree.device_of(batch)):
        costs = _costs(task, batch)
        record, loss_clean = task.clean_pass(*batch)
        clean = _checked_loss(loss_clean)
        gradients = task.clean_gradients(record, loss_clean)
        found = [_rises(task, record, index, gradients, sizes, clean) for index in range(len(task.blocks))]
        prefix = prefix_tokens(model)
        rows = [
            _row(name, feature, cost, rises, sizes, gap, norm, gradient_of_tokens(feature, gradient, prefix))
            for name, feature, cost, rises, gradient in zip(
                task.blocks, record.features, costs, found, gradients, strict=True
            )
        ]
    return ProbeResult(clean, steps, norm, gap, sizes, tuple(rows))


def _checked(sizes: Sequence[float], gap: float, steps: int) -> tuple[tuple[float, ...], float]:
    """The arguments as numbers.

    Raises:
        ConfigError: One of them is not valid.
    """
    errors = []
    try:
        sizes = tuple(map(parse_number, sizes))
        valid = bool(sizes) and sizes[0] > 0 and sizes[-1] < math.inf and list(sizes) == sorted(set(sizes))
    except (TypeError, ValueError):
        valid = False
    if not valid:
        errors.append(f'sizes is {sizes}: pass increasing numbers above 0, such as {SIZES}.')
    is_number = isinstance(gap, (int, float)) and not isinstance(gap, bool)
    if not is_number or not 0 < gap < math.inf:
        errors.append(f'gap is {gap}: pass a number above 0, such as 0.05 for a rise of 5%.')
    if steps == 0:
        errors.append('steps is 0: without a step nothing is perturbed, pass at least 1.')
    if errors:
        raise ConfigError(errors)
    return tuple(sizes), gap


def _checked_loss(loss: torch.Tensor) -> float:
    """The clean loss.

    Raises:
        ConfigError: Nothing can be relative to it.
    """
    value = float(loss.detach())
    if not math.isfinite(value) or value == 0:
        raise ConfigError(f'the loss of the batch is {value:g}, and its rise is relative to it: pass another batch.')
    return value


def _costs(task, batch: tuple) -> list[Optional[float]]:
    """For each block, the operations of a step that perturbs it alone, relative to those of standard training."""
    forward, after = flops.forward_after(task.model, task.blocks, *batch, call=task.objective.call)
    if not forward:
        return [None] * len(task.blocks)
    search = task.search_passes()
    return [flops.relative_cost(forward, [after[name]], *search) if name in after else None for name in task.blocks]


def _rises(
    task, record: ForwardRecord, index: int, gradients: list, sizes: Sequence[float], clean: float
) -> tuple[float, ...]:
    """How much the search at one block raises the loss, for each step size."""
    losses = []
    for size in sizes:
        task.step_sizes = (size,) * len(task.blocks)
        deltas = task.search(record, (index,), gradients)
        with record.norms.frozen():
            losses.append(task.loss_with(record, perturbations((index,), deltas)).detach())
    return tuple((value - clean) / abs(clean) for value in torch.stack(losses).tolist())


def _row(name: str, feature: Any, cost, rises, sizes, gap: float, norm: str, tokens) -> BlockProbe:
    """What was found at one block."""
    crossing = first_crossing(sizes, rises, gap)
    outside = {0.0: 'below', math.inf: 'above'}.get(crossing, '')
    lengths = [float(length) for length in unit_lengths(feature, 'rms', norm)]
    return BlockProbe(
        block=name,
        shape=feature_shape(feature),
        rms=tuple(float(length) for length in unit_lengths(feature, 'rms')),
        cost=cost,
        rises=rises,
        step_size=None if outside else crossing,
        step_size_absolute=None if outside else tuple(crossing * length for length in lengths),
        outside=outside,
        tokens=tokens,
    )
