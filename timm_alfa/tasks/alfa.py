"""ALFA: features are perturbed to where the loss is higher, by ascent (equations 3 and 4)."""

from functools import partial
from typing import Optional, Sequence

import torch
from torch import nn

from timm_alfa.errors import BlockError
from timm_alfa.perturb import ascent
from timm_alfa.perturb.features import perturbations
from timm_alfa.perturb.loss_scale import LossScale, gradients, underflows
from timm_alfa.perturb.precision import search_dtype
from timm_alfa.perturb.strength import Size, unit_lengths
from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.tasks.feature_task import FeatureTask
from timm_alfa.tasks.options.alfa import SearchConfig
from timm_alfa.tasks.step_control import StepControl, initial_state
from timm_alfa.utils import pytree


class AlfaTask(FeatureTask):
    """Adversarial feature augmentation.

    The loss adds, to that of the clean features, one of perturbed features for each block i (equation 3):

        loss = L(f) + lambda * sum_i L(f_i + delta_i)

    Each delta_i is found by K steps of ascent through what follows the feature, and through nothing else (equation 4):

        delta_i <- project(delta_i + step_size * sign(gradient of L(f_i + delta_i) at delta_i))

    Attributes:
        control: Changes the step sizes; None: they are those of the config.
    """

    def __init__(self, model: nn.Module, criterion=None, *, config: SearchConfig, extras=None, **kwargs):
        gap = getattr(config, 'gap', None)
        state = initial_state(model, config, kwargs.get('device')) if gap is not None else {}
        super().__init__(model, criterion, config=config, extras={**state, **(extras or {})}, **kwargs)
        self.loss_scale = LossScale()
        self.step_sizes = self._per_block('step_size', config.step_size)
        self.control = StepControl(self, gap) if gap is not None else None

    def search(self, record: ForwardRecord, group: tuple[int, ...], clean_gradients: Optional[list]) -> list:
        """K steps of ascent (equation 4)."""
        config = self.config
        features = [record.features[i] for i in group]
        units = [unit_lengths(feature, config.unit, config.norm) for feature in features]
        steps = self.step_sizes if self.control is None else self.control.sizes
        sizes = [[steps[i] * length for length in lengths] for i, lengths in zip(group, units, strict=True)]
        bounds = None if config.eps is None else [[config.eps * length for length in lengths] for lengths in units]

        start = [self._start(*each) for each in zip(features, bounds or sizes, strict=True)]
        first = [clean_gradients[i] for i in group] if clean_gradients else None
        gradient = partial(self._gradient, record, group)
        with torch.enable_grad():
            found = ascent.ascend(gradient, start, config.steps, sizes, bounds, config.norm, first=first)
        return pytree.detached(found)

    def observe(self, record: ForwardRecord, loss_clean: torch.Tensor, losses: Sequence[torch.Tensor]) -> None:
        if self.control is not None:
            self.control.note(record, loss_clean, losses)

    def constrain(self) -> None:
        """Changes the step sizes, where they are controlled."""
        if self.control is not None:
            self.control.update()

    def forget_step(self) -> None:
        if self.control is not None:
            self.control.forget()

    def how_to_change(self, verb: str) -> str:
        change = f"{verb.capitalize()} step_size (unit='rms' makes it relative to the feature)"
        return f'{change}, or set gap' if hasattr(self.config, 'gap') and self.control is None else change

    def search_passes(self) -> tuple[int, bool]:
        steps = self.config.steps
        free = self._first_is_clean()
        return 2 * (steps - free), free

    def epoch_metrics(self) -> dict[str, float]:
        """The step size of each block, where they are controlled."""
        if self.control is None:
            return {}
        return dict(zip(self._size_columns(), self.control.sizes.tolist(), strict=True))

    def epoch_plots(self) -> list[EpochPlot]:
        """The step size of every block, where they are controlled."""
        if self.control is None:
            return []
        return [EpochPlot(None, 'step size', self._size_columns(), self.blocks, log=True)]

    def _size_columns(self) -> tuple[str, ...]:
        if len(self.blocks) == 1:
            return ('step_size',)
        return tuple(f'step_size_{index}' for index in range(len(self.blocks)))

    def _start(self, feature, radii: Sequence[Size]) -> list[torch.Tensor]:
        """Zeros, or a random start within a radius, for each floating-point tensor of a feature."""
        deltas = [torch.zeros_like(f, dtype=search_dtype(f)) for f in pytree.floats(pytree.detached(feature))]
        if not self.config.random_start:
            return deltas
        return [ascent.random_within(*each, self.config.norm) for each in zip(deltas, radii, strict=True)]

    def _gradient(self, record: ForwardRecord, group: Sequence[int], deltas: list) -> list:
        """The gradient of L(f_i + delta_i) at delta_i, for a group of features; no running statistic moves."""
        leaves = pytree.map_floats(lambda delta: delta.detach().requires_grad_(), deltas)
        with self.norms_of_search(record).frozen():
            loss = self.loss_with(record, perturbations(group, leaves))
            return self._gradients(loss, leaves, record, group)

    def clean_gradients(self, record: ForwardRecord, loss_clean: torch.Tensor) -> Optional[list]:
        """The gradients of the clean loss at the features: at delta = 0 they are the first step of every search."""
        if not self._first_is_clean():
            return None
        with record.norms.frozen():
            return self._gradients(loss_clean, record.features, record, range(len(self.blocks)), retain_graph=True)

    def _first_is_clean(self) -> bool:
        """Whether the gradient of the clean loss is the first of a search."""
        return self.config.steps > 0 and not self.config.random_start and self.config.bn != 'aux'

    def _gradients(
        self, loss: torch.Tensor, at: Sequence, record: ForwardRecord, group: Sequence[int], **kwargs
    ) -> list[list[torch.Tensor]]:
        """Gradients of the loss, up to a positive factor, at the features of a group or what is added to them.

        Raises:
            BlockError: Nothing of a feature reaches the loss.
        """
        scale = self.loss_scale if underflows([record.features[i] for i in group], record.output) else None
        found = iter(gradients(loss, pytree.floats(at), scale, allow_unused=True, **kwargs))
        nested = [[next(found) for _ in pytree.floats(each)] for each in at]

        unreached = [self.blocks[i] for i, grads in zip(group, nested, strict=True) if all(g is None for g in grads)]
        if unreached:
            raise BlockError(f'nothing of {", ".join(unreached)} reaches the loss: name other blocks.')
        return [_with_zeros(grads, pytree.floats(each)) for grads, each in zip(nested, at, strict=True)]


def _with_zeros(grads: Sequence[Optional[torch.Tensor]], at: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients with zeros for tensors that do not reach the loss."""
    return [torch.zeros_like(x) if grad is None else grad for grad, x in zip(grads, at, strict=True)]
