"""Which tokens of a transformer the gradient of the loss reaches."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import nn

from timm_alfa.utils import pytree


@dataclass(frozen=True)
class Tokens:
    """How the gradient at a feature [B, N, C] is distributed over its N tokens.

    Attributes:
        count: N.
        reached: How many have a gradient that is not zero; a sign step moves these alone.
        prefix: How many tokens come before those of patches: a class token, registers.
        prefix_share: Their share of the gradient, the sum of its absolute values.
    """

    count: int
    reached: int
    prefix: int
    prefix_share: float

    def __str__(self) -> str:
        name = 'the class token' if self.prefix == 1 else f'{self.prefix} prefix tokens'
        if self.prefix and self.prefix_share == 1:
            return f'{name} alone, {self.reached} of {self.count} tokens'
        if self.prefix and self.prefix_share == 0:
            return f'{self.reached} of {self.count} tokens, and not {name}'
        if self.prefix:
            share = f'{self.prefix_share:.1%} on {name}, {1 - self.prefix_share:.1%} on the patches'
            return f'{self.reached} of {self.count} tokens: {share}'
        return f'{self.reached} of {self.count} tokens'


def prefix_tokens(model: nn.Module) -> int:
    """How many tokens of a model come before those of patches, as timm's and Hugging Face's models say."""
    for module in model.modules():
        count = getattr(module, 'num_prefix_tokens', None)
        if isinstance(count, int):
            return count
        if getattr(module, 'cls_token', None) is not None:
            return 1
    return 0


def gradient_of_tokens(feature: Any, gradient: list[torch.Tensor], prefix: int) -> Optional[Tokens]:
    """How a gradient is distributed over tokens; None for a feature that has none, or none that differ.

    Args:
        feature: One tensor [B, N, C], alone or in a tuple; anything else has no tokens.
        gradient: Of each floating-point tensor of the feature.
        prefix: What `prefix_tokens` says.
    """
    values = pytree.floats(feature)
    if len(values) != 1 or values[0].dim() != 3:
        return None
    sizes = gradient[0].detach().double().abs().sum((0, 2))
    total, reached, count = sizes.sum(), int((sizes > 0).sum()), len(sizes)
    if prefix >= count or (prefix == 0 and reached == count):
        return None
    return Tokens(count, reached, prefix, float(sizes[:prefix].sum() / total) if total > 0 else 0.0)
