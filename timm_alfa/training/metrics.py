"""Sums over an epoch, on the device: nothing is read back before the epoch ends."""

from typing import Mapping

import torch
from accelerate import Accelerator

# What a task may report for a batch, and the column of summary.csv that it becomes.
SCALARS = {
    'loss': 'train_loss',
    'loss_clean': 'train_loss_clean',
    'loss_adv': 'train_loss_adv',
    'delta_norm': 'delta_norm',
}
COLUMNS = (*SCALARS.values(), 'correct')


class Totals:
    """Image-weighted sums of a task's scalars and of correct predictions; one small addition per batch.

    Args:
        device: Where batches are.
    """

    def __init__(self, device: torch.device):
        dtype = torch.float32 if device.type == 'mps' else torch.float64
        self.sums = torch.zeros(2, len(COLUMNS), dtype=dtype, device=device)  # values, and the images they count
        self._masks: dict[tuple, torch.Tensor] = {}

    def add(self, result: Mapping[str, torch.Tensor], target: torch.Tensor) -> None:
        """Adds a batch.

        Args:
            result: What the task returned.
            target: Class indices [B], or soft targets [B, C], whose largest entry counts as the class.
        """
        count = len(target)
        present = tuple(name for name in SCALARS if result.get(name) is not None)
        classes = target.argmax(-1) if target.ndim == 2 else target
        correct = (result['output'].detach().argmax(-1) == classes).sum() / count
        zero = correct.new_zeros(())
        values = [result[name].detach().float().reshape(()) if name in present else zero for name in SCALARS]
        if (count, present) not in self._masks:
            counts = [count * (name in present) for name in SCALARS] + [count]
            self._masks[count, present] = self.sums.new_tensor(counts)
        mask = self._masks[count, present]
        self.sums[0] += torch.stack([*values, correct.float()]).to(self.sums.dtype) * mask
        self.sums[1] += mask

    def reset(self) -> None:
        """Starts an epoch, in place."""
        self.sums.zero_()

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes by column, without those never reported. `train_top1` is in percent."""
        sums, counts = accelerator.reduce(self.sums.clone(), 'sum').tolist()
        means = {name: total / count for name, total, count in zip(COLUMNS, sums, counts, strict=True) if count}
        if 'correct' in means:
            means['train_top1'] = 100 * means.pop('correct')
        return means
