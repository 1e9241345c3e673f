"""Gradient ascent on features or images: pure functions of tensors.

A perturbation is a tensor whose first dimension is the batch, or a nested list of such tensors.
"""

from typing import Any, Callable, Optional, Sequence

import torch
from torch.utils._pytree import tree_map

from timm_alfa.perturb.precision import at_least_float32
from timm_alfa.perturb.projections import per_sample, project_ball
from timm_alfa.perturb.strength import Size
from timm_alfa.utils import pytree


def ascend(
    gradient: Callable[[Any], Any],
    delta: Any,
    steps: int,
    step_size: Any,
    eps: Any = None,
    norm: str = 'linf',
    first: Optional[Any] = None,
) -> Any:
    """delta <- project(delta + step_size * direction(gradient(delta))), `steps` times (equations 2 and 4).

    Args:
        gradient: Computes the gradient of the loss at a perturbation; the loss is raised.
        delta: Where to start.
        steps: K, number of steps.
        step_size: Alpha, length of a step in the norm: a `Size`, or one per tensor, nested like `delta`.
        eps: Radius of the ball that each sample has in each tensor, in the same way; None: unbounded, as in the paper.
        norm: 'linf' (steps along the sign) or 'l2' (along each sample's normalized gradient, tensor by tensor).
        first: The gradient at the start, if it is known already; it saves one call of `gradient`.

    Returns:
        The perturbation, nested like `delta`.
    """
    sizes, bounds = _for_each(delta, step_size), _for_each(delta, eps)

    def step(delta: torch.Tensor, gradient: torch.Tensor, size: Size, bound: Optional[Size]) -> torch.Tensor:
        return project_ball(_add(delta, direction(gradient, norm), size), bound, norm)

    for k in range(steps):
        at_delta = first if k == 0 and first is not None else gradient(delta)
        delta = tree_map(step, delta, at_delta, sizes, bounds)
    return delta


def _for_each(delta: Any, value: Any) -> Any:
    """A value for each tensor of a perturbation, unless it is nested like it already."""
    return value if isinstance(value, (list, tuple)) else tree_map(lambda _: value, delta)


def _add(delta: torch.Tensor, way: torch.Tensor, size: Size) -> torch.Tensor:
    """delta + size * way, in one kernel."""
    if isinstance(size, torch.Tensor):
        return torch.addcmul(delta, way, size.to(delta.dtype))
    return delta.add(way, alpha=size)


def direction(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """The steepest ascent direction of length 1 in a norm, sample by sample, in single precision or better.

    A gradient that overflowed in half precision holds infinities and NaN, even after a cast to single precision.
    Infinities still have a sign; NaN entries get no direction, so that they do not spoil the whole sample.
    """
    gradient = at_least_float32(gradient)
    if norm == 'linf':
        return gradient.sign()  # of NaN it is 0
    gradient = torch.nan_to_num(gradient, nan=0.0)
    tiny = torch.finfo(gradient.dtype).tiny
    largest = per_sample(gradient.abs().flatten(1).amax(1), gradient).clamp_min(tiny)
    scaled = gradient / largest  # an l2 norm of tiny entries would underflow
    length = per_sample(scaled.flatten(1).norm(dim=1), gradient)
    return scaled / length.clamp_min(tiny)


def random_within(like: torch.Tensor, radius: Size, norm: str) -> torch.Tensor:
    """A perturbation shaped like a tensor, drawn uniformly from the ball of this radius around zero, sample by sample.

    In high dimension nearly all of an l2 ball lies close to its surface, and the draw with it.
    """
    if isinstance(radius, torch.Tensor):  # numbers of a draw would have to be read from the device
        return random_within(like, 1.0, norm) * radius.to(like.dtype)
    if norm == 'linf':
        return torch.empty_like(like).uniform_(-radius, radius)
    share = torch.rand(len(like), dtype=like.dtype, device=like.device) ** (1 / like.shape[1:].numel())
    return direction(torch.randn_like(like), norm) * per_sample(radius * share, like)


def sample_norm(delta: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over the batch of the l2 norm of a sample's perturbation, all its tensors taken together: a scalar.

    The shortest first dimension is taken for the batch size: TNT's inner patches, for one, have several rows per
    sample. Tensors that this does not divide, such as those of all levels of a detector, count as one sample.
    """
    batch = min(len(d) for d in delta)
    if not batch or any(d.numel() % batch for d in delta):
        batch = 1
    # a sum of squares adds in pairs and is exact to a digit more than `norm`
    squares = [_square_sums(d.float(), batch) for d in delta]
    return (squares[0] if len(squares) == 1 else torch.stack(squares).sum(0)).sqrt().mean()


def _square_sums(delta: torch.Tensor, batch: int) -> torch.Tensor:
    """The sum of squares of each sample, (batch,), without a copy where the first dimension is the batch."""
    if len(delta) == batch and delta.dim() > 1:
        return delta.square().sum(tuple(range(1, delta.dim())))
    return delta.reshape(batch, -1).square().sum(1)


def ratio_to_feature(size: torch.Tensor, feature: Any) -> torch.Tensor:
    """The size of a perturbation relative to what it is added to, |delta| / |f|: a scalar, 0 for a feature of zeros.

    Args:
        size: `sample_norm` of the perturbation.
        feature: Is measured in the same way, all its floating-point tensors together.
    """
    whole = sample_norm(pytree.floats(pytree.detached(feature)))
    return torch.where(whole > 0, size / whole, torch.zeros_like(whole))
