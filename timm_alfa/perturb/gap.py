"""Step sizes that hold the rise of the loss at a target: one step of a controller. Functions of tensors.

All of it stays on the device. What is measured is a row of numbers that can be added up over the batches and the
processes of an update.
"""

from typing import NamedTuple, Sequence

import torch

from timm_alfa.perturb.precision import at_least_float32

RATE = 0.1  # by how much a step size changes in an update at most
MEMORY = 0.9  # of the running mean of the clean loss, per update
SMALLEST, LARGEST = 1e-6, 1.0  # step sizes, relative to the root mean square of the feature


class Measured(NamedTuple):
    """Means over the batches of an update.

    Attributes:
        clean: Size of the clean loss, a scalar.
        added: By how much perturbing each block raised the loss (r,).
        lengths: What a step size as large as the feature would be (r,).
        known: Whether something was measured, and all of it is finite.
    """

    clean: torch.Tensor
    added: torch.Tensor
    lengths: torch.Tensor
    known: torch.Tensor


def measure(loss_clean: torch.Tensor, losses: Sequence[torch.Tensor], lengths: Sequence[torch.Tensor]) -> torch.Tensor:
    """One batch's row (2 + 2r,): to be added up, and read by `measured`.

    Args:
        loss_clean: A scalar.
        losses: With each block perturbed.
        lengths: As in `Measured`.
    """
    clean = at_least_float32(loss_clean.detach())
    added = [loss.to(clean.dtype) - clean for loss in losses]
    return torch.stack([torch.ones_like(clean), clean.abs(), *added, *(length.to(clean.dtype) for length in lengths)])


def measured(sums: torch.Tensor) -> Measured:
    """The means that a sum of rows holds."""
    blocks = (len(sums) - 2) // 2
    clean, added, lengths = (sums[1:] / sums[0]).split([1, blocks, blocks])
    return Measured(clean[0], added, lengths, sums.isfinite().all() & (sums[0] > 0))


def next_clean(clean: torch.Tensor, now: Measured) -> torch.Tensor:
    """The running mean of the clean loss's size; before the first update it is 0."""
    mean = torch.where(clean > 0, torch.lerp(now.clean, clean, MEMORY), now.clean)
    return torch.where(now.known, mean, clean)


def next_sizes(sizes: torch.Tensor, clean: torch.Tensor, now: Measured, gap: float) -> torch.Tensor:
    """The step sizes after an update: larger where the loss rose by less than the target, smaller where by more.

        size <- size * (1 + RATE * clip(1 - added / (gap * clean), -1, 1))

    The rise is relative to the running mean of the clean loss, so that a batch whose own loss is almost zero does
    little. Where nothing was measured, sizes stay.

    Args:
        sizes: (r,).
        clean: What `next_clean` returned.
        gap: The target, relative to the clean loss.
    """
    error = (1 - now.added / (gap * clean)).clamp(-1, 1).nan_to_num(0.0)
    moved = sizes * (1 + RATE * error)
    bounded = torch.where(now.lengths > 0, moved.clamp(SMALLEST * now.lengths, LARGEST * now.lengths), sizes)
    return torch.where(now.known, bounded, sizes)
