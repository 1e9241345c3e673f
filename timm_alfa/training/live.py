"""Numbers of the latest updates: for the progress bar, log lines and trackers."""

from typing import Any, Mapping

import torch

from timm_alfa.training.metrics import SUMMED, Totals

# What is shown of the latest updates, and its name in trackers.
LOSSES = {'loss_clean': 'train/loss_clean', 'loss_adv': 'train/loss_adv', 'loss': 'train/loss'}
MEMORY = 'train/memory_gb'


class LiveMetrics:
    """Means over this process's latest updates, from the sums of the epoch.

    Reading them waits for the device: do it once every so many updates, not after each.

    Args:
        totals: Sums of the current epoch.
    """

    def __init__(self, totals: Totals):
        self.totals = totals
        self.before = totals.sums.clone()

    def restart(self) -> None:
        """Forgets what is left of an epoch, whose sums were reset."""
        self.before = self.totals.sums.clone()

    def read(self) -> dict[str, float]:
        """Means since the reading before, by name in trackers; empty without a finite loss since then.

        On a GPU, also the largest memory that tensors have taken, in GB.
        """
        now = self.totals.sums.clone()
        sums, counts = (now - self.before).tolist()
        self.before = now
        means = {name: total / count for name, total, count in zip(SUMMED, sums, counts, strict=True) if count}
        found = {title: means[name] for name, title in LOSSES.items() if name in means}
        if now.device.type == 'cuda':
            found[MEMORY] = torch.cuda.max_memory_allocated(now.device) / 1e9
        return found


def live_text(values: Mapping[str, Any], lr: float) -> str:
    """The numbers for a progress bar or a log line.

    Args:
        values: From `LiveMetrics.read`.
        lr: The learning rate.
    """
    parts = []
    clean, adversarial = (values.get(LOSSES[name]) for name in ('loss_clean', 'loss_adv'))
    if clean is None and adversarial is None:
        clean = values.get(LOSSES['loss'])
    if clean is not None:
        parts.append(f'loss {clean:.4f}')
    if adversarial is not None:
        parts.append(f'adv loss {adversarial:.4f}')
    parts.append(f'lr {lr:.1e}')
    if MEMORY in values:
        parts.append(f'{values[MEMORY]:.1f} GB')
    return ', '.join(parts)
