"""Nearest points of sets: the ball that bounds a perturbation, and the sets of L-ALFA's eta. Functions of tensors."""

from typing import Optional

import torch

from timm_alfa.perturb.precision import at_least_float32
from timm_alfa.perturb.strength import Size


def project_ball(delta: torch.Tensor, eps: Optional[Size], norm: str) -> torch.Tensor:
    """The nearest perturbation with norm at most `eps`, sample by sample; None: the perturbation itself."""
    if eps is None:
        return delta
    if isinstance(eps, torch.Tensor):  # of a feature of zeros it is 0
        eps = eps.to(delta.dtype).clamp_min(torch.finfo(delta.dtype).tiny)
    if norm == 'linf':
        return torch.clamp(delta, -eps, eps)  # type: ignore[arg-type]  # both numbers or both tensors
    length = per_sample(delta.flatten(1).norm(dim=1), delta)
    return delta * (eps / length.clamp_min(eps))


def per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One value per sample [B] in a shape that broadcasts with a tensor [B, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def project_hyperplane(eta: torch.Tensor) -> torch.Tensor:
    """The nearest point to eta (r,) with sum 1: every entry changes by the same amount (algorithm 1, line 5)."""
    return eta - (eta.sum() - 1) / eta.numel()


def project_simplex(eta: torch.Tensor) -> torch.Tensor:
    """The nearest point to eta (r,) with sum 1 and no negative entry (Wang et al. 2019b).

    It is max(eta - shift, 0). At the shift the k largest entries exceed it by 1 in sum, for some k, and by no more for
    any other: the shift is the largest of (their sum - 1) / k.
    """
    values = at_least_float32(eta)
    values = values - values.max()  # changes the shift alone; what stays above it is small, so no digits are lost
    counts = torch.arange(1, values.numel() + 1, dtype=values.dtype, device=values.device)
    shift = ((values.sort(descending=True).values.cumsum(0) - 1) / counts).max()
    return (values - shift).clamp_min(0).to(eta.dtype)


PROJECTIONS = {'hyperplane': project_hyperplane, 'simplex': project_simplex}
