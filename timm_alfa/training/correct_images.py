"""Which images of a subset a model classifies correctly, whatever their order and however processes share them."""

import torch
from accelerate import Accelerator

from timm_alfa.training.metrics import ranked_classes
from timm_alfa.utils.bits import PackedBits


class CorrectImages:
    """Collects the answers of this process's batches; nothing is read back from the device before the end.

    Args:
        indices: Of all images in their source, increasing, (n,) int64: their order is that of the result.
    """

    def __init__(self, indices: torch.Tensor):
        self.indices = indices
        self._seen: list[torch.Tensor] = []
        self._correct: list[torch.Tensor] = []

    def add(self, indices: torch.Tensor, output: torch.Tensor, target: torch.Tensor) -> None:
        """Adds a batch.

        Args:
            indices: Of its images in their source, (batch,) int64 on the CPU.
            output: Logits, (batch, classes).
            target: Class indices, (batch,).
        """
        self._seen.append(torch.searchsorted(self.indices, indices))
        self._correct.append(is_correct(output, target))

    def pack(self, accelerator: Accelerator) -> PackedBits:
        """The answers of all processes. An image that none of them has read counts as wrong.

        Raises:
            RuntimeError: An image was counted twice.
        """
        counts = torch.zeros(2, len(self.indices), dtype=torch.int32, device=accelerator.device)
        if self._seen:
            places = torch.cat(self._seen).to(counts.device)
            counts[0].index_add_(0, places, torch.ones_like(places, dtype=counts.dtype))
            counts[1].index_add_(0, places, torch.cat(self._correct).to(counts.dtype))
        seen, correct = accelerator.reduce(counts, 'sum').cpu()
        if (seen > 1).any():
            raise RuntimeError(f'{int((seen > 1).sum())} images were evaluated more than once.')
        return PackedBits.pack(correct.bool().numpy())


def is_correct(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Whether the first class is the right one, bool (batch,)."""
    return ranked_classes(output, 1)[:, 0] == target
