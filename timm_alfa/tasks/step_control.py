"""ALFA's step sizes under control: `gap` says by what share the perturbed loss shall exceed the clean one."""

from typing import TYPE_CHECKING, Any, Sequence

import torch
from torch import nn

from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.options import numbers
from timm_alfa.perturb import gap
from timm_alfa.perturb.strength import Size, unit_lengths
from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.utils.distributed import sum_over_processes
from timm_alfa.utils.unwrap import unwrap

if TYPE_CHECKING:
    from timm_alfa.tasks.feature_task import FeatureTask


def initial_state(model: nn.Module, config: Any, device: Any) -> dict[str, nn.Buffer]:
    """What a control keeps between updates, as buffers of a task: they are saved, and undone with a skipped update.

    Args:
        config: A `SearchConfig`.
        device: Of the task.
    """
    blocks = len(resolve_blocks(unwrap(model), config.blocks))
    sizes = numbers(config.step_size)
    sizes = sizes * blocks if len(sizes) == 1 else sizes
    return {
        'step_size': nn.Buffer(torch.tensor(sizes, dtype=torch.float32, device=device)),
        'gap_clean': nn.Buffer(torch.zeros((), device=device)),
        'gap_sums': nn.Buffer(torch.zeros(2 + 2 * blocks, device=device)),
    }


class StepControl:
    """Holds the rise of the loss at a target, block by block; nothing of it waits for the device.

    All processes add up what they measured, so that step sizes are the same everywhere.

    Args:
        task: Has the buffers of `initial_state`.
        target: The rise, relative to the clean loss.
    """

    def __init__(self, task: 'FeatureTask', target: float):
        self.task, self.target = task, target

    @property
    def sizes(self) -> torch.Tensor:
        """The step size of each block (r,)."""
        return self.task.get_extra('step_size')

    @torch.no_grad()
    def note(self, record: ForwardRecord, loss_clean: torch.Tensor, losses: Sequence[torch.Tensor]) -> None:
        """Adds what a batch shows to what is measured.

        Args:
            losses: One for each group of blocks that are perturbed together.
        """
        groups = self.task.groups
        by_block = {index: loss for group, loss in zip(groups, losses, strict=True) for index in group}
        lengths = [self._length(record.features[index]) for index in by_block]
        self.task.get_extra('gap_sums').add_(gap.measure(loss_clean, list(by_block.values()), lengths))

    def _length(self, feature: Any) -> torch.Tensor:
        """The step size that would be as large as the feature, or its largest tensor."""
        config = self.task.config
        found: list[Size] = [1.0] if config.unit == 'rms' else unit_lengths(feature, 'rms', config.norm)
        return torch.stack([torch.as_tensor(x, dtype=torch.float32, device=self.sizes.device) for x in found]).max()

    @torch.no_grad()
    def update(self) -> None:
        """Changes the step sizes by what was measured since the update before."""
        sums, clean = self.task.get_extra('gap_sums'), self.task.get_extra('gap_clean')
        now = gap.measured(sum_over_processes(sums))
        clean.copy_(gap.next_clean(clean, now))
        self.sizes.copy_(gap.next_sizes(self.sizes, clean, now, self.target))
        sums.zero_()

    def forget(self) -> None:
        """Forgets what was measured since the update before."""
        self.task.get_extra('gap_sums').zero_()
