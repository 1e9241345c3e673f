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
    'delta_ratio': 'delta_ratio',
}
COMPARED = 'loss_compared'  # the clean loss of those batches alone that have a perturbed one
# What is summed, in the order in which states hold it: what was added to SCALARS later is at the end.
_FIRST = ('loss', 'loss_clean', 'loss_adv', 'delta_norm', 'correct', COMPARED)
SUMMED = (*_FIRST, *(name for name in SCALARS if name not in _FIRST))


def ranked_classes(output: torch.Tensor, most: int) -> torch.Tensor:
    """The most probable classes of each image, that first: (batch, most), or (batch, classes) if there are fewer.

    They are the first of timm's top five, which decides ties as in its accuracies.

    Args:
        output: Logits, (batch, classes).
    """
    return output.detach().float().topk(min(max(5, most), output.shape[-1]), dim=-1).indices[:, :most]


class Totals:
    """Image-weighted sums of a task's scalars and of correct predictions; one small addition per batch.

    Args:
        device: Where batches are.
    """

    def __init__(self, device: torch.device):
        dtype = torch.float32 if device.type == 'mps' else torch.float64
        self.sums = torch.zeros(2, len(SUMMED), dtype=dtype, device=device)  # values, and the images they count
        self._masks: dict[tuple, torch.Tensor] = {}

    def add(self, result: Mapping[str, torch.Tensor], target: torch.Tensor) -> None:
        """Adds a batch.

        Args:
            result: What the task returned.
            target: Class indices [B], or soft targets [B, C], whose largest entry counts as the class.
        """
        count = len(target)
        classes = target.argmax(-1) if target.ndim == 2 else target
        correct = (result['output'].detach().argmax(-1) == classes).sum() / count
        values = {name: result[name] for name in SCALARS if result.get(name) is not None}
        if 'loss_clean' in values and 'loss_adv' in values:
            values[COMPARED] = values['loss_clean']
        values['correct'] = correct

        present = tuple(name for name in SUMMED if name in values)
        zero = correct.new_zeros(())
        row = [values[name].detach().float().reshape(()) if name in values else zero for name in SUMMED]
        if (count, present) not in self._masks:
            self._masks[count, present] = self.sums.new_tensor([count * (name in present) for name in SUMMED])
        mask = self._masks[count, present]
        self.sums[0] += torch.stack(row).to(self.sums.dtype) * mask
        self.sums[1] += mask

    def reset(self) -> None:
        """Starts an epoch, in place."""
        self.sums.zero_()

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes by column, without those never reported.

        `train_top1` is in percent. `loss_rise` says by what share the perturbed loss exceeds the clean one, both over
        the same batches.
        """
        sums, counts = accelerator.reduce(self.sums.clone(), 'sum').tolist()
        means = {name: total / count for name, total, count in zip(SUMMED, sums, counts, strict=True) if count}
        columns = {column: means[name] for name, column in SCALARS.items() if name in means}
        if 'correct' in means:
            columns['train_top1'] = 100 * means['correct']
        if means.get(COMPARED):
            columns['loss_rise'] = (means['loss_adv'] - means[COMPARED]) / abs(means[COMPARED])
        return columns
