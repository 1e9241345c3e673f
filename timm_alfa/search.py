"""Sign ascent on features or images, and the projections of L-ALFA: pure functions of tensors.

A perturbation is a list of tensors whose first dimension is the batch.
"""
from typing import Callable, Optional, Sequence

import torch

Tensors = list[torch.Tensor]
NORMS = ('linf', 'l2')


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
        eps: Radius of the ball; None leaves the perturbation unbounded, as in the paper.
        norm: 'linf' (steps along the sign) or 'l2' (steps along the normalised gradient of each sample).
        first: The gradient at the start, if it is known already; it saves one call of `gradient`.

    Returns:
        The perturbation, shaped like `delta`.
    """
    for step in range(steps):
        grads = first if step == 0 and first is not None else gradient(delta)
        delta = [project(d.add(direction(g, norm), alpha=step_size), eps, norm)
                 for d, g in zip(delta, grads, strict=True)]
    return delta


def direction(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """The steepest ascent direction of length 1 in a norm, sample by sample, in single precision or better.

    A gradient that overflowed in half precision holds infinities and NaN, also after a cast to single precision.
    Infinities still point somewhere; NaN entries get no direction, so that they do not spoil the whole sample.
    """
    gradient = gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient
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


def project_simplex(eta: torch.Tensor, iterations: int = 100) -> torch.Tensor:
    """The nearest point to eta (r,) with sum 1 and no negative entry (Wang et al. 2019b).

    It is max(eta - shift, 0); bisection finds the shift.
    """
    values = eta.double()
    low, high = values.min() - 1 / values.numel(), values.max()
    for _ in range(iterations):
        middle = (low + high) / 2
        above = (values - middle).clamp_min(0).sum() > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (values - (low + high) / 2).clamp_min(0).to(eta.dtype)


PROJECTIONS = {'hyperplane': project_hyperplane, 'simplex': project_simplex}
