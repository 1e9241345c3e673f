"""L-ALFA: ALFA on many blocks, each with a learned magnitude (equation 5, algorithm 1)."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn as nn

from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.errors import warn
from timm_alfa.perturb.projections import PROJECTIONS
from timm_alfa.tasks.alfa import AlfaTask
from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.tasks.options.l_alfa import DEFAULT_BLOCKS, LAlfaConfig
from timm_alfa.utils.fsdp import distribute_like, full_tensor

MOMENTUM = 0.9


class LAlfaTask(AlfaTask):
    """Learnable adversarial feature augmentation.

    Each perturbation is multiplied by a learned magnitude, whose l1 norm is added to the loss (equation 5):

        loss = L(f) + lambda * sum_i L(f_i + eta_i * delta_i) + gamma * ||eta||_1

    The search for delta_i does not use eta, and `post_step` projects eta onto the set P (algorithm 1).

    Attributes:
        eta: A parameter of shape (r,), one entry for each block.
    """

    config: LAlfaConfig

    def __init__(self, model: nn.Module, criterion=None, *, config: LAlfaConfig, **kwargs):
        config = _blocks_that_exist(model, config)
        names = resolve_blocks(model, config.blocks)
        if len(names) == 1:
            warn(f'with one block, {names[0]}, eta is always 1: this is ALFA.')
        eta = nn.Parameter(torch.ones(len(names), device=kwargs.get('device')))
        super().__init__(model, criterion, config=config, extras={'eta': eta}, **kwargs)

    @property
    def eta(self) -> nn.Parameter:
        """The learned magnitudes (r,), in the order of `blocks`."""
        return self.get_extra('eta')

    def scaled(self, deltas: list, group: tuple[int, ...]) -> list:
        """eta_i * delta_i."""
        return [[self.eta[i].to(d.dtype) * d for d in delta] for i, delta in zip(group, deltas, strict=True)]

    def combined(self, loss_clean: torch.Tensor, total: torch.Tensor, count: int) -> torch.Tensor:
        """The whole loss (equation 5)."""
        return super().combined(loss_clean, total, count) + self.config.gamma * self.eta.abs().sum()

    def perturbed(self, *batch) -> dict[str, torch.Tensor]:
        return {**super().perturbed(*batch), 'eta': self.eta.detach().clone()}

    @torch.no_grad()
    def constrain(self) -> None:
        """Projects eta onto P (algorithm 1, line 5)."""
        project = PROJECTIONS[self.config.projection]
        self.eta.copy_(distribute_like(project(full_tensor(self.eta)), self.eta))

    def extra_param_groups(self) -> list[dict[str, Any]]:
        """A group for eta (its own learning rate, momentum, no weight decay), and one for auxiliary norms, if any."""
        eta = {'params': [self.eta], 'lr': self.config.eta_lr, 'momentum': MOMENTUM, 'weight_decay': 0.0}
        rest = [p for p in self.own_parameters() if p is not self.eta]
        return [eta, {'params': rest, 'weight_decay': 0.0}] if rest else [eta]

    def epoch_metrics(self) -> dict[str, float]:
        """eta, one column per block."""
        return dict(zip(self._columns(), self._eta_values(), strict=True))

    def epoch_plots(self) -> list[EpochPlot]:
        """eta of every block."""
        equal = 1 / len(self.blocks)
        plot = EpochPlot(
            file='eta.png',
            title='weight of each block (eta)',
            columns=self._columns(),
            labels=self.blocks,
            xlabel='block, from the input to the classifier',
            reference=equal,
            reference_label=f'equal weights: {equal:.3g}',
        )
        return [plot]

    def result_entries(self) -> dict[str, Any]:
        """eta as training left it."""
        return {'eta': self._eta_values()}

    def _columns(self) -> tuple[str, ...]:
        return tuple(f'eta_{index}' for index in range(len(self.blocks)))

    def _eta_values(self) -> list[float]:
        return full_tensor(self.eta).float().cpu().tolist()


def _blocks_that_exist(model: nn.Module, config: LAlfaConfig) -> LAlfaConfig:
    """The config, whose default is nine units, for a model that may have fewer."""
    if config.blocks != DEFAULT_BLOCKS:
        return config
    units = len(resolve_blocks(model, 'units'))
    if units >= 9:
        return config
    warn(f"{type(model).__name__} has {units} units, not the nine of blocks='{DEFAULT_BLOCKS}': all are perturbed.")
    return replace(config, blocks='units')
