"""ISDA (Wang et al. 2019): features vary along the covariance of their class, in closed form instead of by samples."""

from contextlib import contextmanager
from typing import Any, Iterator

import torch
import torch.distributed as dist
import torch.nn as nn

from timm_alfa.errors import ConfigError
from timm_alfa.perturb.covariance import Moments, joined, logit_variances, moments_of
from timm_alfa.perturb.precision import at_least_float32, search_dtype, without_autocast
from timm_alfa.replay.module_tree import ancestors
from timm_alfa.replay.redirect import redirected, without_checkpointing
from timm_alfa.replay.replay import Replay
from timm_alfa.tasks.base import MethodTask
from timm_alfa.tasks.options.isda import IsdaConfig
from timm_alfa.utils.fsdp import is_sharded
from timm_alfa.utils.unwrap import unwrap

_LARGEST = 2**30  # bytes of full covariances, or of their products with all pairs of classes


class IsdaTask(MethodTask):
    """The loss of an upper bound: the expected loss of features a ~ N(f, lambda * Sigma_y), for class y of feature f.

        loss = L(z'),  z'_j = z_j + lambda / 2 * (w_j - w_y)^T Sigma_y (w_j - w_y)  (proposition 1 of Wang et al.)

    z are the logits and w the weights of the last layer. Sigma is estimated online from the features of all processes,
    the current batch included; no gradient flows into it. lambda rises linearly with the updates.

    With soft targets, an image counts for its classes by their shares, and so do the second terms of its logits.

    Args:
        model: A classifier whose last layer is linear.
        criterion: Loss of logits and targets.
        config: An `IsdaConfig`.
        kwargs: For `MethodTask`.

    Raises:
        ConfigError: The last layer is not linear, or its covariances are too large; in a step, the number of updates is
            not known.
    """

    only_classifiers = 'it needs the last layer of a classifier and the classes of images'

    def __init__(self, model: nn.Module, criterion=None, *, config: IsdaConfig, **kwargs):
        name, linear = _last_layer(unwrap(model))
        _check_size(linear, config.covariance)
        statistics = ClassStatistics(linear, config.covariance == 'diagonal')
        super().__init__(model, criterion, config=config, extras={'statistics': statistics}, **kwargs)
        self.last_layer = name

    def perturbs(self) -> bool:
        return self.config.strength > 0 and super().perturbs()

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        with self._observing(target) as terms:
            output = self.objective.call(self.trainable_module, input, target)
        loss_clean = self.objective.loss(output, input, target)
        if len(terms) != 1:
            raise ConfigError(
                f"'{self.last_layer}' is called {len(terms)} times in a forward pass: isda needs one call."
            )
        loss = self.objective.loss(output + terms[0], input, target)
        return {'loss': loss, 'output': output, 'loss_clean': loss_clean.detach(), 'loss_adv': loss.detach()}

    def constrain(self) -> None:
        """Counts the update on the device, where the strength is computed: a graph would keep a number of the host."""
        self.get_extra('statistics').running_updates += 1

    def strength(self) -> torch.Tensor:
        """lambda of the next update, a scalar.

        Raises:
            ConfigError: It is not known how many updates there will be.
        """
        ramp = self.config.ramp or self.total_updates
        if ramp is None and self.updates:
            raise ConfigError(
                "isda's strength rises over the whole training: pass ramp=N, the number of updates, or set "
                'task.total_updates.'
            )
        return self.config.strength * (self.get_extra('statistics').running_updates / (ramp or 1)).clamp(max=1)

    @contextmanager
    def _observing(self, target: torch.Tensor) -> Iterator[list[torch.Tensor]]:
        """While inside, a pass of the model moves the statistics, and adds the second terms of its logits to a list."""
        terms: list[torch.Tensor] = []
        layer: Any = self.model.get_submodule(self.last_layer)

        def observe(original):
            def call(features, *args, **kwargs):
                terms.append(self._terms(features, target, layer.weight))
                return original(features, *args, **kwargs)

            return call

        around = [self.model.get_submodule(name) for name in ancestors(self.last_layer)]
        with without_checkpointing(around), redirected({layer: observe}):
            yield terms

    def _terms(self, features: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """lambda / 2 * (w_j - w_y)^T Sigma_y (w_j - w_y) for each image and class j [N, C]; moves the statistics.

        Args:
            features: What the last layer is called with [N, D].
            weight: Of the last layer [C, D].

        Raises:
            ConfigError: Features are not one vector per image, or the weight is sharded.
        """
        if features.dim() != 2:
            raise ConfigError(
                f"'{self.last_layer}' is called with features of shape {list(features.shape)}: isda needs one vector "
                'per image.'
            )
        if is_sharded([weight]):
            raise ConfigError(
                f"isda needs the weights of '{self.last_layer}', which FSDP2 shards as a unit of its own: choose "
                'another fsdp_auto_wrap_policy.'
            )
        with without_autocast(features.device):
            shares = _shares(target, len(weight), search_dtype(features))
            after = self.get_extra('statistics').add(at_least_float32(features.detach()), shares)
            variances = logit_variances(at_least_float32(weight), after.cov)
            return self.strength() / 2 * (shares.to(variances.dtype) @ variances)

    def parts(self) -> list[nn.Module]:
        """The modules before the last layer and that layer, one by one."""
        return Replay(self.model, (self.last_layer,)).parts()


class ClassStatistics(nn.Module):
    """Statistics of each class's features, in buffers that loops treat as running statistics: by their names.

    Args:
        linear: The layer that takes the features.
        diagonal: Keep variances only.
    """

    running_updates: torch.Tensor
    running_amount: torch.Tensor
    running_mean: torch.Tensor
    running_cov: torch.Tensor

    def __init__(self, linear: nn.Linear, diagonal: bool):
        super().__init__()
        self.diagonal = diagonal
        classes, size = linear.out_features, linear.in_features
        like: dict[str, Any] = dict(dtype=search_dtype(linear.weight), device=linear.weight.device)
        self.register_buffer('running_updates', torch.zeros((), **like))
        self.register_buffer('running_amount', torch.zeros(classes, **like))
        self.register_buffer('running_mean', torch.zeros(classes, size, **like))
        shape = (classes, size) if diagonal else (classes, size, size)
        self.register_buffer('running_cov', torch.zeros(shape, **like))

    @torch.no_grad()
    def add(self, features: torch.Tensor, shares: torch.Tensor) -> Moments:
        """Adds the features of every process, and returns the statistics after that.

        Args:
            features: Of this process [N, D], with the same N in each.
            shares: How much of each belongs to each class [N, C].
        """
        buffers = Moments(self.running_amount, self.running_mean, self.running_cov)
        features, shares = (_of_all_processes(x).to(self.running_mean.dtype) for x in (features, shares))
        after = joined(buffers, moments_of(features, shares, self.diagonal))
        # in place, but not what is returned: graphs of other batches may still need that
        for buffer, value in zip(buffers, after, strict=True):
            buffer.copy_(value)
        return after


def _of_all_processes(x: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in one tensor on each of them."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    rows = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, x.contiguous())
    return torch.cat(rows)


def _shares(target: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
    """Soft targets as they are, or ones for classes and zeros [N, C]."""
    if target.dim() == 2:
        return target.to(dtype)
    return (target[:, None] == torch.arange(classes, device=target.device)).to(dtype)


def _last_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """The classifier and its name.

    Raises:
        ConfigError: It is not known, or not a single linear layer.
    """
    get_classifier: Any = getattr(model, 'get_classifier', lambda: None)
    found = get_classifier()
    name = next((name for name, module in model.named_modules() if module is found), '')
    if not name or not isinstance(found, nn.Linear) or type(found).forward is not nn.Linear.forward:
        what = 'has no get_classifier()' if found is None else f'has {type(found).__name__}'
        raise ConfigError(f'isda needs a single linear classifier, and {type(model).__name__} {what}: choose another.')
    return name, found


def _check_size(linear: nn.Linear, covariance: str) -> None:
    """Refuses covariances that would fill a GPU.

    Raises:
        ConfigError: They are larger than 1 GiB.
    """
    classes, size = linear.out_features, linear.in_features
    needed = classes * size * max(classes, size) * search_dtype(linear.weight).itemsize
    if covariance == 'full' and needed > _LARGEST:
        raise ConfigError(
            f"covariance='full' takes {needed / 2**30:.1f} GiB for {classes} classes of {size} features, "
            f"and at most 1 GiB is allowed: use covariance='diagonal'."
        )
