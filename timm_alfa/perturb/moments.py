"""Moment exchange: images take each other's mean and standard deviation. Functions of tensors."""

import torch

from timm_alfa.errors import ConfigError
from timm_alfa.perturb.precision import at_least_float32

EPSILON = 1e-5


def exchange_moments(
    feature: torch.Tensor,
    partner: torch.Tensor,
    norm: str = 'pono',
    groups: int = 4,
    channels_last: bool = False,
) -> torch.Tensor:
    """Gives each image of a feature its partner's first two moments (equation 5 of Li et al.).

    Args:
        feature: [B, C, ...], or [B, ..., C].
        partner: Index of each image's partner [B].
        norm: Moments over 'pono': channels, one pair per position; 'in': positions, one pair per channel; 'gn': the
            channels of a group and positions, one pair per group.
        groups: Number of groups of channels, for 'gn'.
        channels_last: Whether channels are the last dimension.

    Returns:
        A feature of the same shape and dtype, computed in single precision or better. Gradients also flow into the
        moments.

    Raises:
        ConfigError: The number of channels is not a multiple of the groups.
    """
    x = at_least_float32(feature)
    x = x.movedim(-1, 1) if channels_last else x
    shape = x.shape
    if norm == 'gn':
        if shape[1] % groups:
            raise ConfigError(f'groups is {groups}: it must divide the {shape[1]} channels of the layer.')
        x = x.unflatten(1, (groups, -1))
    dims = 1 if norm == 'pono' else tuple(range(2, x.dim()))
    mean = x.mean(dims, keepdim=True)
    std = (x.var(dims, keepdim=True, correction=0) + EPSILON).sqrt()
    x = ((x - mean) * (std[partner] / std) + mean[partner]).view(shape)
    return (x.movedim(1, -1) if channels_last else x).to(feature.dtype)
