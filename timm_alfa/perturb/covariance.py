"""Statistics of the features of each class, estimated online, and what they say of a linear classifier's logits."""

from typing import NamedTuple

import torch


class Moments(NamedTuple):
    """Statistics of the features of C classes.

    Attributes:
        amount: Number of features so far [C]; a soft target counts by its share.
        mean: [C, D].
        cov: Covariances [C, D, D], or variances [C, D]; they divide by the amount.
    """

    amount: torch.Tensor
    mean: torch.Tensor
    cov: torch.Tensor


def moments_of(features: torch.Tensor, shares: torch.Tensor, diagonal: bool) -> Moments:
    """The statistics of one batch; zeros for classes that are not in it.

    Args:
        features: [N, D].
        shares: How much of each feature belongs to each class [N, C]: ones and zeros, or soft targets.
        diagonal: Whether variances are enough.
    """
    # about the mean of all, so that squares do not cancel
    center = features.mean(0)
    features = features - center
    amount = shares.sum(0)
    weights = shares / amount.where(amount > 0, 1)  # those of a class add up to one
    mean = weights.T @ features
    if diagonal:
        cov = weights.T @ features.square() - mean.square()
    else:
        weighted = weights.T[:, :, None] * features  # [C, N, D]
        cov = weighted.transpose(1, 2) @ features - mean[:, :, None] * mean[:, None, :]
    is_present = (amount > 0)[:, None]
    return Moments(amount, torch.where(is_present, mean + center, 0), cov)


def joined(old: Moments, new: Moments) -> Moments:
    """The statistics of both together: the online estimate of Wang et al."""
    amount = old.amount + new.amount
    share = new.amount / amount.where(amount > 0, 1)
    between = old.mean - new.mean
    is_diagonal = old.cov.dim() == 2
    outer = between.square() if is_diagonal else between[:, :, None] * between[:, None, :]
    of_cov = share[:, None] if is_diagonal else share[:, None, None]
    return Moments(
        amount,
        old.mean + share[:, None] * (new.mean - old.mean),
        old.cov + of_cov * (new.cov - old.cov + (1 - of_cov) * outer),
    )


def logit_variances(weight: torch.Tensor, cov: torch.Tensor) -> torch.Tensor:
    """How much features of each class spread along the differences of a linear classifier's weights.

    Args:
        weight: w of the classifier [C, D].
        cov: Sigma of each class [C, D, D], or its diagonal [C, D].

    Returns:
        (w_j - w_y)^T Sigma_y (w_j - w_y) at [y, j]: [C, C].
    """
    if cov.dim() == 2:
        # the square multiplied out: all pairs of differences would need C * C * D numbers
        own = (weight * cov * weight).sum(1, keepdim=True)
        return (cov @ weight.square().T - 2 * (weight * cov) @ weight.T + own).clamp(min=0)
    differences = weight - weight[:, None]  # [y, j, D]
    return ((differences @ cov) * differences).sum(-1)
