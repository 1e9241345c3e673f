"""MoEx (Li et al. 2020): images exchange the moments of an early feature, and a little of their labels."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator, Optional

import torch
import torch.nn as nn

from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.errors import BlockError, ConfigError
from timm_alfa.options import option
from timm_alfa.perturb.ascent import at_least_float32
from timm_alfa.replay.redirect import redirected, without_checkpointing
from timm_alfa.replay.replay import Replay
from timm_alfa.tasks.base import MethodTask, logits
from timm_alfa.utils import pytree

EPSILON = 1e-5
STEMS = (
    'stem',
    'patch_embed',
    'patch_embed1',
    'patch_embeds.0',
    'stem_dct',
    'bn1',
    'conv_stem',
    'base_layer',
    'body.conv1',
    'features.conv1_1',
    'Conv2d_1a_3x3',
    'conv2d_1a',
    'norm2_proj',
)


@dataclass(frozen=True)
class MoExConfig:
    """Options of moment exchange; the defaults are the paper's for ImageNet."""

    layer: str = option('stem', "feature whose moments are exchanged: 'stem', or one block or module name")
    lam: float = option(0.9, "weight of an image's own label; the partner's has the rest", low=0, high=1)
    prob: float = option(0.5, 'share of the batches in which moments are exchanged', low=0, high=1)
    norm: str = option(
        'pono',
        "moments over the channels of a position ('pono'), over the positions of a channel "
        "('in'), or over groups of channels ('gn')",
        choices=('pono', 'in', 'gn'),
    )
    groups: int = option(4, "groups of channels for norm='gn'; 1 is layer norm", low=1)

    def no_effect(self) -> Iterator[str]:
        """What cannot have an effect, one line each."""
        if self.prob == 0:
            yield 'prob=0: moments are never exchanged, this is standard training.'
        if self.groups != 4 and self.norm != 'gn':
            yield f"groups={self.groups} has no effect with norm='{self.norm}'."


class MoExTask(MethodTask):
    """Moment exchange: h_A -> sigma_B (h_A - mu_A) / sigma_A + mu_B, loss lam * l(., y_A) + (1 - lam) * l(., y_B).

    There is one forward pass a step; 'output' are its logits, of exchanged images in steps that exchange. Whether a
    batch exchanges, and the images' partners, are drawn from torch's CPU generator; each process draws for its own
    batch.

    Raises:
        BlockError: The layer is no single module of the model.
    """

    def __init__(self, model: nn.Module, criterion=None, *, config: MoExConfig, **kwargs):
        super().__init__(model, criterion, config=config, **kwargs)
        self.layer = _resolve(self.model, config.layer)
        self.prob = config.prob

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        if torch.rand((), device='cpu').item() >= self.prob:
            output = logits(self.trainable_module(input))
            return {'loss': self.criterion(output, target), 'output': output}
        partner = torch.randperm(len(input), device='cpu').to(input.device, non_blocking=True)
        with self.exchanging(partner):
            output = logits(self.trainable_module(input))
        lam = self.config.lam
        loss = lam * self.criterion(output, target) + (1 - lam) * self.criterion(output, target[partner])
        return {'loss': loss, 'output': output}

    @contextmanager
    def trial(self) -> Iterator[None]:
        """As for every method; the next call exchanges moments, unless no call ever does."""
        prob = self.prob
        if prob:
            self.prob = 1.0
        try:
            with super().trial():
                yield
        finally:
            self.prob = prob

    @contextmanager
    def exchanging(self, partner: torch.Tensor) -> Iterator[None]:
        """While inside, one pass of the model exchanges moments between images.

        Args:
            partner: Index of each image's partner [B].

        Raises:
            BlockError: The layer was not called exactly once, or its output has no moments.
        """
        names = ['.'.join(self.layer.split('.')[:n]) for n in range(self.layer.count('.') + 1)]
        around = [self.model.get_submodule(name) for name in names]
        module, calls = self.model.get_submodule(self.layer), []

        def exchanged(original):
            def call(*args, **kwargs):
                calls.append(1)
                return self.exchanged(original(*args, **kwargs), partner)

            return call

        with without_checkpointing([*around, module]), redirected({module: exchanged}):
            yield
        if len(calls) != 1:
            raise BlockError(
                f"layer '{self.layer}' is called {len(calls)} times in a forward pass: name a module that "
                'is called once.'
            )

    def exchanged(self, feature: Any, partner: torch.Tensor) -> Any:
        """The feature with the partners' moments in each of its tensors."""
        values = pytree.floats(feature)
        shapes = ', '.join(str(list(x.shape)) for x in values)
        if not values or any(len(x) != len(partner) or x.dim() < 3 for x in values):
            raise BlockError(
                f"layer '{self.layer}' gives {shapes or 'no tensor'} for {len(partner)} images: moments "
                'need images, channels and positions. Name an earlier layer.'
            )
        config, last = self.config, _channels_last(self.model, self.layer)
        return pytree.map_floats(
            lambda x: exchange_moments(x, partner, config.norm, config.groups, last or x.dim() == 3), feature
        )

    def parts(self) -> list[nn.Module]:
        """The modules before and after the layer, one by one."""
        return Replay(self.model, (self.layer,)).parts()


def exchange_moments(
    feature: torch.Tensor,
    partner: torch.Tensor,
    norm: str = 'pono',
    groups: int = 4,
    channels_last: bool = False,
) -> torch.Tensor:
    """Gives each image of a feature its partner's first two moments (equation 5 of Li et al.).

    Args:
        feature: [B, C, ...], or [B, ..., C].
        partner: Index of each image's partner [B].
        norm: Moments over 'pono': channels, one pair a position; 'in': positions, one pair a channel; 'gn': channels
            of a group and positions, one pair a group.
        groups: Of channels, for 'gn'.
        channels_last: Whether channels are the last dimension.

    Returns:
        Like the feature; computed in single precision where it has less. Gradients flow into the moments too.

    Raises:
        ConfigError: The channels do not fall into groups.
    """
    x = at_least_float32(feature)
    x = x.movedim(-1, 1) if channels_last else x
    shape = x.shape
    if norm == 'gn':
        if shape[1] % groups:
            raise ConfigError(f'groups is {groups}: it must divide the {shape[1]} channels of the layer.')
        x = x.unflatten(1, (groups, -1))
    dims = 1 if norm == 'pono' else tuple(range(2, x.dim()))
    mean = x.mean(dims, keepdim=True)
    deviation = (x.var(dims, keepdim=True, correction=0) + EPSILON).sqrt()
    x = ((x - mean) * (deviation[partner] / deviation) + mean[partner]).view(shape)
    return (x.movedim(1, -1) if channels_last else x).to(feature.dtype)


def _resolve(model: nn.Module, layer: str) -> str:
    if layer == 'stem':
        return _stem(model)
    names = resolve_blocks(model, layer)
    if len(names) != 1:
        raise BlockError(
            f"layer '{layer}' names {len(names)} modules ({', '.join(names[:4])}, ...): moments are "
            'exchanged in one. Name one.'
        )
    return names[0]


def _stem(model: nn.Module) -> str:
    """The first unit; if that lies in a stage, a module with the name of a stem, where there is one."""
    first = resolve_blocks(model, 'units')[0]
    if not any(f'{first}.'.startswith(f'{stage}.') for stage in resolve_blocks(model, 'all')):
        return first
    modules = dict(model.named_modules())
    stems = (name for name in STEMS if name in modules and type(modules[name]).forward is not nn.Module.forward)
    return next(stems, first)


def _channels_last(model: nn.Module, layer: str) -> bool:
    """Whether a feature is [B, H, W, C]: as the layer says, or else the nearest module around it that says so."""
    names = layer.split('.')
    for n in range(len(names), -1, -1):
        said: Optional[Any] = getattr(model.get_submodule('.'.join(names[:n])), 'output_fmt', None)
        if said is not None:
            return str(getattr(said, 'value', said)) == 'NHWC'
    return False
