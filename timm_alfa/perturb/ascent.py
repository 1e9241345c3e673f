"""Sign ascent on features or images, and the projections of L-ALFA: pure functions of tensors.

A perturbation is a list of tensors whose first dimension is the batch.
"""

from typing import Callable, Optional, Sequence

import torch

Tensors = list[torch.Tensor]
NORMS = ('linf', 'l2')
_HALF = (torch.float16, torch.bfloat16)


def ascend(
    gradient: Callable[[Tensors], Sequence[torch.Tensor]],
    delta: Tensors,
    steps: int,
    step_size: float,
    eps: Optional[float] = None,
    norm: str = 'linf',
    first: Optional[Sequence[torch.Tensor]] = None,
) -> Tensors:
    """delta <- project(delta + step_size * direction(gradient(delta))), `steps` times (equations 2 and 4).

    Args:
        gradient: Computes the gradient of the loss at a perturbation; the loss is raised.
        delta: Where to start.
        steps: K, number of steps.
        step_size: Alpha, length of a step in the norm.
        eps: Radius of the ball that each sample has in each tensor; None: unbounded, as in the paper.
        norm: 'linf' (steps along the sign) or 'l2' (along each sample's normalised gradient, tensor by tensor).
        first: The gradient at the start, if it is known already; it saves one call of `gradient`.

    Returns:
        The perturbation, shaped like `delta`.
    """
    for step in range(steps):
        grads = first if step == 0 and first is not None else gradient(delta)
        delta = [
            project(d.add(direction(g, norm), alpha=step_size), eps, norm) for d, g in zip(delta, grads, strict=True)
        ]
    return delta


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """The same in single precision or better."""
    return x.float() if x.dtype in _HALF else x


def direction(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """The steepest ascent direction of length 1 in a norm, sample by sample, in single precision or better.

    A gradient that overflowed in half precision holds infinities and NaN, also after a cast to single precision.
    Infinities still point somewhere; NaN entries get no direction, so that they do not spoil the whole sample.
    """
    gradient = at_least_float32(gradient)
    if norm == 'linf':
        return gradient.sign()  # of NaN it is 0
    gradient = torch.nan_to_num(gradient, nan=0.0)
    largest = _per_sample(gradient.abs().flatten(1).amax(1), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
    scaled = gradient / largest  # an l2 norm of tiny entries would underflow
    length = _per_sample(scaled.flatten(1).norm(dim=1), gradient)
    return scaled / length.clamp_min(torch.finfo(gradient.dtype).tiny)


def project(delta: torch.Tensor, eps: Optional[float], norm: str) -> torch.Tensor:
    """The nearest perturbation within the ball of radius `eps` around zero, sample by sample."""
    if eps is None:
        return delta
    if norm == 'linf':
        return delta.clamp(-eps, eps)
    length = _per_sample(delta.flatten(1).norm(dim=1), delta)
    return delta * (eps / length.clamp_min(eps))


def random_within(like: torch.Tensor, radius: float, norm: str) -> torch.Tensor:
    """A perturbation shaped like a tensor, drawn uniformly from the ball of this radius around zero, sample by sample.

    In high dimension nearly all of an l2 ball lies close to its surface, and the draw with it.
    """
    if norm == 'linf':
        return torch.empty_like(like).uniform_(-radius, radius)
    share = torch.rand(len(like), dtype=like.dtype, device=like.device) ** (1 / like.shape[1:].numel())
    return direction(torch.randn_like(like), norm) * _per_sample(radius * share, like)


def sample_norm(delta: Tensors) -> torch.Tensor:
    """Mean over the batch of the l2 norm of a sample's perturbation, all its tensors taken together: a scalar.

    The shortest first dimension is taken for the batch size: TNT's inner patches, for one, have several rows a sample.
    """
    batch = min(len(d) for d in delta)
    # a sum of squares adds in pairs and is exact to a digit more than `norm`
    return torch.stack([d.float().reshape(batch, -1).square().sum(1) for d in delta]).sum(0).sqrt().mean()


def _per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def project_hyperplane(eta: torch.Tensor) -> torch.Tensor:
    """The nearest point to eta (r,) with sum 1: every entry moves by the same amount (algorithm 1, line 5)."""
    return eta - (eta.sum() - 1) / eta.numel()


def project_simplex(eta: torch.Tensor) -> torch.Tensor:
    """The nearest point to eta (r,) with sum 1 and no negative entry (Wang et al. 2019b).

    It is max(eta - shift, 0). At the shift the k largest entries exceed it by 1 in sum, for some k, and by no more for
    any other: it is the largest of (their sum - 1) / k.
    """
    values = at_least_float32(eta)
    values = values - values.max()  # moves the shift alone, and what is left above it is small: no digits are lost
    counts = torch.arange(1, values.numel() + 1, dtype=values.dtype, device=values.device)
    shift = ((values.sort(descending=True).values.cumsum(0) - 1) / counts).max()
    return (values - shift).clamp_min(0).to(eta.dtype)


PROJECTIONS = {'hyperplane': project_hyperplane, 'simplex': project_simplex}
