"""What the methods that add something to features share: options, clean pass, perturbed losses (equation 3)."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.errors import BlockError, ConfigError, warn
from timm_alfa.options import PerBlock
from timm_alfa.perturb import ascent
from timm_alfa.replay import flops, norms, scalars
from timm_alfa.replay.accumulate import DeferredLosses
from timm_alfa.replay.module_tree import ancestors
from timm_alfa.replay.recorder import ForwardRecord
from timm_alfa.replay.replay import Replay
from timm_alfa.tasks.base import MethodTask
from timm_alfa.tasks.options.feature import FeatureConfig
from timm_alfa.tasks.perturbed_losses import PerturbedLosses
from timm_alfa.utils import pytree, rng
from timm_alfa.utils.unwrap import unwrap

# What an epoch's perturbations should change the loss by, relative to the clean one; outside of it a run warns.
LEAST_RISE, LARGEST_RISE = 0.001, 2.0


class FeatureTask(MethodTask):
    """Trains on clean features f_i and on perturbed ones (equation 3); subclasses find the perturbations delta_i.

        loss = L(f) + lambda * sum_i L(f_i + delta_i)

    Args:
        model: Any model.
        criterion: Loss of logits and targets.
        config: A `FeatureConfig`.
        extras: Parameters and modules that the method trains in addition to the model, by name.
        kwargs: For `MethodTask`.

    Attributes:
        blocks: Names of the modules whose outputs are perturbed.
        groups: Which of them are perturbed together, as indices into `blocks`; there is one perturbed loss per group.

    Raises:
        BlockError: The block spec names nothing in this model, or what the other options do not go with.
    """

    def __init__(self, model: nn.Module, criterion=None, *, config: FeatureConfig, extras=None, **kwargs):
        extras = dict(extras or {})
        if config.bn == 'aux':
            extras['aux'] = norms.make_aux_norms(unwrap(model))
        reason = norms.why_no_aux(unwrap(model))
        if config.bn != 'clean' and reason:
            warn(f"bn='{config.bn}' has no effect: {reason}.")
        super().__init__(model, criterion, config=config, extras=extras, **kwargs)

        self.blocks = resolve_blocks(self.model, config.blocks)
        if config.bn != 'clean':
            self._refuse_features_inside_norms()
        if config.mode == 'joint' and type(config).mode != 'joint' and len(self.blocks) == 1:
            warn(f"mode='joint' has no effect with one block, {self.blocks[0]}.")
        indices = range(len(self.blocks))
        self.groups = [tuple(indices)] if config.mode == 'joint' else [(index,) for index in indices]
        self.block_weights = self._per_block('weight', config.weight)
        self._replay = Replay(self.model, self.blocks, self.objective.call)

    def _refuse_features_inside_norms(self) -> None:
        """A norm around a feature runs again in its replays, on placeholders: its statistics must not move then.

        Raises:
            BlockError: A feature lies inside a layer with running statistics.
        """
        layers = norms.batch_norms(self.model).keys()
        inside = {block: around for block in self.blocks for around in sorted(layers & ancestors(block))}
        if inside:
            raise BlockError(
                f"bn='{self.config.bn}' takes no feature inside a layer with running statistics, such "
                f"as {', '.join(inside)}: name {', '.join(inside.values())}, or use bn='clean'."
            )

    def _per_block(self, name: str, value: PerBlock) -> tuple[float, ...]:
        """One number for each block.

        Raises:
            BlockError: There are several, and not as many as blocks.
        """
        if not isinstance(value, tuple):
            return (value,) * len(self.blocks)
        if len(value) != len(self.blocks):
            raise BlockError(
                f'{name} has {len(value)} values, and there are {len(self.blocks)} blocks: {", ".join(self.blocks)}. '
                'Pass one value for all, or one for each in this order.'
            )
        return value

    def perturbed(self, *batch) -> dict[str, torch.Tensor]:
        # the clean pass
        record, loss_clean = self.clean_pass(*batch)
        clean_gradients = self.clean_gradients(record, loss_clean)

        # for each group of features, a search and a perturbed loss
        losses, sizes, ratios = self._perturbed_losses(record), [], []
        for group in self.groups:
            deltas = self.search(record, group, clean_gradients)
            weight = self.block_weights[group[0]] if isinstance(self.config.weight, tuple) else None
            scaled = self.scaled(deltas, group)
            losses.add(group, scaled, weight)
            size = ascent.sample_norm(pytree.floats(deltas))
            added = size if scaled is deltas else ascent.sample_norm(pytree.floats(pytree.detached(scaled)))
            sizes.append(size)
            ratios.append(ascent.ratio_to_feature(added, [record.features[i] for i in group]))
        self.observe(record, loss_clean, losses.values)

        # equation 3
        loss = self.combined(loss_clean, losses.total(), len(self.groups))
        if self.config.bn == 'aux' and self.extras is not None:
            loss = loss + self.extras.zero_loss()  # auxiliary norms before the feature are not used

        return {
            'loss': loss,
            'output': record.output,
            'loss_clean': loss_clean.detach(),
            'loss_adv': losses.mean(),
            'delta_norm': scalars.mean(sizes),
            'delta_ratio': scalars.mean(ratios),
        }

    def clean_pass(self, *batch) -> tuple[ForwardRecord, torch.Tensor]:
        """The clean pass as replays need it, and its loss."""
        return self._clean_loss(self._replay.record(*batch, through=self.trainable_module))

    def _clean_loss(self, record: ForwardRecord) -> tuple[ForwardRecord, torch.Tensor]:
        """The loss of the clean pass, and the record with what the loss drew from.

        Raises:
            ConfigError: The loss writes into a feature or the batch, which the replays need as they are.
        """
        device = pytree.device_of(record.output)
        values = (record.features, record.batch)
        states, versions = rng.states(device), pytree.versions(values)
        loss = self.objective.loss(record.output, *record.batch)
        if pytree.versions(values) != versions:
            raise ConfigError(
                'the loss writes into its arguments in place, and the perturbed losses need them as they were: compute '
                'a new tensor, for example output.sigmoid() and not output.sigmoid_().'
            )
        draws = not rng.same(states, rng.states(device))
        return (replace(record, loss_states=states) if draws else record), loss

    def is_settled(self) -> bool:
        return self._replay.is_certain or not self.perturbs()

    # What subclasses say

    def search(self, record: ForwardRecord, group: tuple[int, ...], clean_gradients: Optional[list]) -> list:
        """The perturbations of a group of features.

        Args:
            record: The clean pass.
            group: Indices into `blocks` of the features that are perturbed together.
            clean_gradients: What the method of this name returned.

        Returns:
            delta_i for each feature of the group: a list of tensors, shaped like the feature's floating-point tensors.
        """
        raise NotImplementedError

    def clean_gradients(self, record: ForwardRecord, loss_clean: torch.Tensor) -> Optional[list]:
        """Gradients of the clean loss at every feature, or None if the search does not need them."""
        return None

    def observe(self, record: ForwardRecord, loss_clean: torch.Tensor, losses: Sequence[torch.Tensor]) -> None:
        """What a method notes of a batch.

        Args:
            record: The clean pass.
            losses: The perturbed losses, detached, one for each group.
        """

    def scaled(self, deltas: list, group: tuple[int, ...]) -> list:
        """Perturbations as they are added to the features: L-ALFA multiplies them by eta."""
        return deltas

    def combined(self, loss_clean: torch.Tensor, total: torch.Tensor, count: int) -> torch.Tensor:
        """The whole loss from the clean loss and the sum of `count` perturbed ones (equation 3).

        Weights per block are in the sum already.
        """
        weight = mean = self.config.weight
        if isinstance(self.config.weight, tuple):
            weight, mean = 1.0, sum(self.block_weights) / len(self.block_weights)
        if self.config.reduction == 'sum':
            return loss_clean + weight * total
        return (loss_clean + weight * total / count) / (1 + mean)

    # What a run is told

    def strength_warning(self, rise: float) -> str:
        if rise < LEAST_RISE:
            return (
                f'perturbed features change the loss by {rise:+.2%} only: the clean loss is counted twice. '
                f'{self.how_to_change("raise")}.'
            )
        if rise > LARGEST_RISE:
            return f'the perturbed loss is {1 + rise:.1f} times the clean one. {self.how_to_change("lower")}.'
        return ''

    def how_to_change(self, verb: str) -> str:
        """How a user makes perturbations larger or smaller, as a sentence without a full stop."""
        return f'{verb.capitalize()} the size of the perturbation'

    def search_passes(self) -> tuple[int, bool]:
        """Passes forth and back through a tail that a search makes, and whether it needs the clean gradients, too."""
        return 0, False

    def expected_cost(self, input: torch.Tensor) -> Optional[float]:
        forward, after = flops.forward_after(self.model, self.blocks, input)
        tails = [max(after[self.blocks[i]] for i in group) for group in self.groups]
        extra = flops.relative_cost(forward, tails, *self.search_passes()) - 1
        return 1 + extra / self.config.every

    def describe_loss(self) -> str:
        count = len(self.groups)
        if self.config.reduction == 'sum':
            return f'{count + 1} losses summed'
        return f'weighted mean of the clean loss and {count} perturbed one{"s" if count > 1 else ""}'

    # Losses with changed features

    def loss_with(self, record: ForwardRecord, changes: dict[int, Callable], attached: bool = False) -> torch.Tensor:
        """The loss with some features changed; with bn='aux' it is computed through the auxiliary norms.

        Args:
            record: The clean pass.
            changes: By index into `blocks`, a function of the feature.
            attached: Whether gradients flow into what comes before the features.
        """
        with self._adversarial_norms():
            output = self._replay.run(record, changes, attached)
        if record.loss_states is None:
            return self.objective.loss(output, *record.batch)
        with rng.preserve_rng(pytree.device_of(output)):
            rng.restore(record.loss_states)
            return self.objective.loss(output, *record.batch)

    def _adversarial_norms(self):
        if self.config.bn != 'aux':
            return nullcontext()
        return norms.swap_norms(self.model, self.get_extra('aux'), self._replay.watched)

    def norms_of_search(self, record: ForwardRecord) -> norms.RunningNorms:
        """The layers whose running statistics a search must not move: the model's, and the auxiliary ones."""
        return record.norms.joined_by(self.get_extra('aux')) if self.config.bn == 'aux' else record.norms

    def _perturbed_losses(self, record: ForwardRecord) -> PerturbedLosses:
        deferred = DeferredLosses(self._trained_parameters()) if len(self.groups) > 1 else None
        loss = partial(self._perturbed_loss, record)
        return PerturbedLosses(loss, self._replay, record, self._trains_all, deferred)

    def _perturbed_loss(self, record: ForwardRecord, changes: dict[int, Callable]) -> torch.Tensor:
        """A loss that is trained on, in which the model's running statistics move only if they are shared."""
        with nullcontext() if self.config.bn == 'shared' else record.norms.frozen():
            return self.loss_with(record, changes, attached=self._trains_all)

    @property
    def _trains_all(self) -> bool:
        """Whether the perturbed losses train what comes before the features, too."""
        return self.config.grad == 'full'

    def _trained_parameters(self) -> list[nn.Parameter]:
        """Parameters of the model, the method and the loss, without those of an EMA, which are in the task, too."""
        modules = (self.trainable_module, *self.objective.modules)
        return list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))

    # Compiled models

    def compile(  # type: ignore[override]  # as timm's tasks
        self, backend: str = 'inductor', mode: Optional[str] = None, **compile_kwargs: Any
    ) -> nn.Module:
        """As every method does; in steps that perturb, what comes before the first feature is one part."""
        self._replay.compile(partial(torch.compile, backend=backend, mode=mode, **compile_kwargs))
        return super().compile(backend, mode, **compile_kwargs)

    def parts(self) -> list[nn.Module]:
        """The modules between the features, one by one."""
        return self._replay.parts()
