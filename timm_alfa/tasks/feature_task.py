"""What the methods that add something to features share: options, clean pass, perturbed losses (equation 3)."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Callable, Iterable, Iterator, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.errors import BlockError, warn
from timm_alfa.options import option
from timm_alfa.perturb import ascent
from timm_alfa.perturb.loss_scale import autocasts_to_fp16
from timm_alfa.replay import norms
from timm_alfa.replay.accumulate import DeferredLosses
from timm_alfa.replay.module_tree import ancestors
from timm_alfa.replay.replay import Record, Replay
from timm_alfa.tasks.base import MethodTask, logits
from timm_alfa.utils import pytree
from timm_alfa.utils.unwrap import unwrap


@dataclass(frozen=True)
class FeatureConfig:
    """Options of every method that adds something to features."""

    blocks: str = option('last', 'features: last, 3, 1,3, all, units, units:9, convs, or module names and globs')
    weight: float = option(1.0, 'lambda, the weight of the perturbed loss', low=0)
    reduction: str = option(
        'sum',
        "'sum': clean + weight * sum_i adv_i; 'mean': (clean + weight * mean_i adv_i) / (1 + weight)",
        choices=('sum', 'mean'),
    )
    grad: str = option(
        'full',
        "the perturbed loss trains the 'full' network, or only the 'tail' after the feature",
        choices=('full', 'tail'),
    )
    bn: str = option(
        'clean',
        "running statistics: moved by the 'clean' pass alone, 'shared' with the perturbed pass, "
        "or 'aux': norms of its own for the perturbed pass",
        choices=('clean', 'shared', 'aux'),
    )
    mode: str = option(
        'separate',
        "'separate': one perturbed loss a block; 'joint': all blocks perturbed in one",
        choices=('separate', 'joint'),
    )
    every: int = option(1, 'perturb every n-th update', low=1)
    start: int = option(0, 'first update that perturbs', low=0)

    def no_effect(self) -> Iterator[str]:
        """What cannot have an effect, one line each."""
        if self.weight == 0:
            yield 'weight=0: the perturbed loss is computed and ignored.'


class FeatureTask(MethodTask):
    """Trains on clean features and on perturbed ones; subclasses say what the perturbation is.

    Args:
        model: Any classifier.
        criterion: Loss of logits and targets, a mean over the batch.
        config: A `FeatureConfig`.
        own: What the method trains beside the model.
        kwargs: For `timm.task.ClassificationTask`.

    Raises:
        BlockError: The block spec names nothing in this model, or what the other options do not go with.
    """

    def __init__(self, model: nn.Module, criterion=None, *, config: FeatureConfig, own=None, **kwargs):
        own: dict = dict(own or {})
        if config.bn == 'aux':
            own['aux'] = norms.make_aux_norms(unwrap(model))
        lacking = norms.why_no_aux(unwrap(model))
        if config.bn != 'clean' and lacking:
            warn(f"bn='{config.bn}' has no effect: {lacking}.")
        super().__init__(model, criterion, config=config, own=own, **kwargs)
        self.blocks = resolve_blocks(self.model, config.blocks)
        if config.bn != 'clean':
            self._refuse_features_of_norms()
        if config.mode == 'joint' and len(self.blocks) == 1:
            warn(f"mode='joint' has no effect with one block, {self.blocks[0]}.")
        self._replay = Replay(self.model, self.blocks)

    def _refuse_features_of_norms(self) -> None:
        """A norm around a feature runs again in its replays, on placeholders: its statistics must not move then.

        Raises:
            BlockError: A feature lies inside of a layer with running statistics.
        """
        layers = norms.batch_norms(self.model).keys()
        inside = {block: around for block in self.blocks for around in sorted(layers & ancestors(block))}
        if inside:
            raise BlockError(
                f"bn='{self.config.bn}' takes no feature inside of a layer with running statistics, such "
                f"as {', '.join(inside)}: name {', '.join(inside.values())}, or give bn='clean'."
            )

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        record = self._replay.record(input, self.trainable_module)
        loss_clean = self.criterion(logits(record.output), target)
        groups = [(i,) for i in range(len(self.blocks))]
        if self.config.mode == 'joint':
            groups = [tuple(range(len(self.blocks)))]
        clean = self.clean_gradients(record, loss_clean)
        kept, losses, sizes = [], [], []
        deferred = DeferredLosses(self._trained()) if len(groups) > 1 else None
        for group in groups:
            delta = self.search(record, target, group, clean)
            loss, moved = self.loss_at(record, target, group), self.scaled(delta, group)
            if deferred is not None and deferred.possible and self._can_defer(record, group):
                feature = self.moved(record, group[0], moved[0])
                losses.append(deferred.add(partial(self._given, loss, group[0]), feature))
            else:
                kept.append(loss(additions(group, moved)))
                losses.append(kept[-1].detach())
            sizes.append(ascent.sample_norm(pytree.floats(delta)))
        if deferred is not None and deferred.values:
            kept.append(deferred.total())
        loss = self.combined(loss_clean, torch.stack(kept).sum(), len(losses))
        if self.config.bn == 'aux':
            loss = loss + self.zero_loss()  # norms before the feature are not used
        return {
            'loss': loss,
            'output': record.output,
            'loss_clean': loss_clean.detach(),
            'loss_adv': torch.stack(losses).mean(),
            'delta_norm': torch.stack(sizes).mean(),
        }

    def search(self, record: Record, target: torch.Tensor, group: tuple[int, ...], clean: Optional[list]) -> list:
        """The perturbation of a group of features.

        Args:
            record: The clean pass.
            target: Classes [B], or soft targets [B, num_classes].
            group: Indices into `blocks` of the features that are perturbed together.
            clean: What `clean_gradients` returned.

        Returns:
            For each feature of the group a list of tensors, shaped like the feature's floating-point tensors.
        """
        raise NotImplementedError

    def clean_gradients(self, record: Record, loss_clean: torch.Tensor) -> Optional[list]:
        """Gradients of the clean loss at every feature, or None if the search does not need them."""
        return None

    def scaled(self, delta: list, group: tuple[int, ...]) -> list:
        """A perturbation as it is added to the features: L-ALFA multiplies it by eta."""
        return delta

    def combined(self, loss_clean: torch.Tensor, total: torch.Tensor, count: int) -> torch.Tensor:
        """The whole loss from the clean loss and the sum of `count` perturbed ones (equation 3)."""
        if self.config.reduction == 'sum':
            return loss_clean + self.config.weight * total
        return (loss_clean + self.config.weight * total / count) / (1 + self.config.weight)

    def tail(self, record: Record, changes: dict[int, Callable], attached: bool = False) -> torch.Tensor:
        """Logits with some features changed; with bn='aux' they come through the auxiliary norms."""
        aux = nullcontext()
        if self.config.bn == 'aux':
            aux = norms.swap_norms(self.model, self.extras.aux, self._replay.watched)
        with aux:
            return self._replay.run(record, changes, attached)

    def loss_at(self, record: Record, target: torch.Tensor, group: tuple[int, ...]) -> Callable:
        """The perturbed loss of a group, as a function of how its features are changed."""
        attached = self.config.grad == 'full'

        def loss(changes: dict[int, Callable]) -> torch.Tensor:
            with nullcontext() if self.config.bn == 'shared' else norms.freeze_running_stats(self.model):
                return self.criterion(self.tail(record, changes, attached), target)

        return loss

    def moved(self, record: Record, index: int, delta: list):
        """A feature with its perturbation added, in the model's graph if the loss trains what comes before it."""
        feature = record.features[index]
        return _add(delta)(feature if self.config.grad == 'full' else pytree.detached(feature))

    def _given(self, loss: Callable, index: int, feature):
        """A perturbed loss with a feature in place of the model's own."""
        feature = pytree.cloned(feature) if self._replay.is_overwritten(index) else feature  # leaves cannot be
        return loss({index: lambda _: feature})

    def _trained(self) -> Iterable[nn.Parameter]:
        """Parameters of the model, the method and the criterion; the task has those of averaged weights, too."""
        modules = (self.trainable_module, self.criterion)
        return dict.fromkeys(p for module in modules if isinstance(module, nn.Module) for p in module.parameters())

    def _can_defer(self, record: Record, group: tuple[int, ...]) -> bool:
        """Not where something passes the feature by, nor in fp16: gradients of the unscaled loss would underflow."""
        return self._replay.stands_alone(*group) and not self.in_fp16(record, group)

    def compile(self, backend: str = 'inductor', mode: Optional[str] = None, **compile_kwargs) -> nn.Module:
        """As every method does; in steps that perturb, what comes before the first feature is one part."""
        self._replay.compile(partial(torch.compile, backend=backend, mode=mode, **compile_kwargs))
        return super().compile(backend, mode, **compile_kwargs)

    def parts(self) -> list[nn.Module]:
        """The modules between the features, one by one."""
        return self._replay.parts()

    def in_fp16(self, record: Record, group: Sequence[int]) -> bool:
        """Whether gradients at these features are in fp16, where they can underflow."""
        return autocasts_to_fp16(pytree.device_of(record.output)) or any(
            f.dtype == torch.float16 for i in group for f in pytree.floats(record.features[i])
        )


def additions(group: tuple[int, ...], delta: list) -> dict[int, Callable]:
    """The changes of a group of features that add a perturbation to them."""
    return {i: _add(d) for i, d in zip(group, delta, strict=True)}


def _add(delta: Sequence[torch.Tensor]) -> Callable:
    return lambda feature: pytree.with_floats(
        feature, [_sum(f, d) for f, d in zip(pytree.floats(feature), delta, strict=True)]
    )


def _sum(feature: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Feature plus delta, in the feature's precision; under autocast in delta's, which the next operation casts."""
    moved = feature + delta
    return moved if torch.is_autocast_enabled(feature.device.type) else moved.to(feature.dtype)
