"""MoEx (Li et al. 2020): images exchange moments of an early feature, and a little of their labels."""

from contextlib import contextmanager
from typing import Any, Iterator, Optional

import torch
import torch.nn as nn

from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.errors import BlockError
from timm_alfa.perturb.moments import exchange_moments
from timm_alfa.replay.module_tree import ancestors, is_callable
from timm_alfa.replay.redirect import redirected, without_checkpointing
from timm_alfa.replay.replay import Replay
from timm_alfa.tasks.base import MethodTask
from timm_alfa.tasks.options.moex import MoExConfig
from timm_alfa.utils import pytree

# Modules that end the stem of a model whose first unit lies in a stage.
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


class MoExTask(MethodTask):
    """Moment exchange: image A gets the moments of the feature of image B, and a little of its label.

        h_A <- sigma_B * (h_A - mu_A) / sigma_A + mu_B
        loss = lam * L(f(h_A), y_A) + (1 - lam) * L(f(h_A), y_B)

    There is one forward pass per step; 'output' is its logits, those of exchanged images in steps that exchange.
    Whether a batch exchanges, and the images' partners, are drawn from torch's CPU generator; each process draws for
    its own batch.

    Raises:
        BlockError: The layer is not a single module of the model.
    """

    only_classifiers = 'it mixes the classes of images'

    def __init__(self, model: nn.Module, criterion=None, *, config: MoExConfig, **kwargs):
        super().__init__(model, criterion, config=config, **kwargs)
        self.layer = _resolve(self.model, config.layer)
        self.prob = config.prob

    def perturbed(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        if torch.rand((), device='cpu').item() >= self.prob:
            output = self.objective.call(self.trainable_module, input, target)
            return {'loss': self.objective.loss(output, input, target), 'output': output}

        partner = torch.randperm(len(input), device='cpu').to(input.device, non_blocking=True)
        with self.exchanging(partner):
            output = self.objective.call(self.trainable_module, input, target)
        loss_own = self.objective.loss(output, input, target)
        loss_partner = self.objective.loss(output, input, target[partner])
        lam = self.config.lam
        return {'loss': lam * loss_own + (1 - lam) * loss_partner, 'output': output}

    def why_no_graph(self) -> str:
        return 'it draws on the host whether a batch exchanges moments, and with whom'

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
        calls = 0

        def exchange(original):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                return self.exchanged(original(*args, **kwargs), partner)

            return call

        layer = self.model.get_submodule(self.layer)
        around = [self.model.get_submodule(name) for name in ancestors(self.layer)]
        with without_checkpointing([*around, layer]), redirected({layer: exchange}):
            yield
        if calls != 1:
            raise BlockError(
                f"layer '{self.layer}' is called {calls} times in a forward pass: name a module that is called once."
            )

    def exchanged(self, feature: Any, partner: torch.Tensor) -> Any:
        """The feature with the partners' moments in each of its tensors.

        Raises:
            BlockError: The feature is not one tensor or more of images, channels and positions.
        """
        values = pytree.floats(feature)
        shapes = ', '.join(str(list(x.shape)) for x in values)
        if not values or any(len(x) != len(partner) or x.dim() < 3 for x in values):
            raise BlockError(
                f"layer '{self.layer}' returns {shapes or 'no tensor'} for {len(partner)} images: moments "
                'need images, channels and positions. Name an earlier layer.'
            )
        config, channels_last = self.config, _channels_last(self.model, self.layer)

        def exchange(x: torch.Tensor) -> torch.Tensor:
            tokens = x.dim() == 3
            return exchange_moments(x, partner, config.norm, config.groups, channels_last or tokens)

        return pytree.map_floats(exchange, feature)

    def parts(self) -> list[nn.Module]:
        """The modules before and after the layer, one by one."""
        return Replay(self.model, (self.layer,)).parts()


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
    """The first unit; if that lies in a stage, a module with the name of a stem, if there is one."""
    first = resolve_blocks(model, 'units')[0]
    if not any(f'{first}.'.startswith(f'{stage}.') for stage in resolve_blocks(model, 'all')):
        return first
    modules = dict(model.named_modules())
    stems = (name for name in STEMS if name in modules and is_callable(modules[name]))
    return next(stems, first)


def _channels_last(model: nn.Module, layer: str) -> bool:
    """Whether a feature is [B, H, W, C]: the layer's `output_fmt`, or that of the nearest module around it."""
    for name in sorted({layer, *ancestors(layer)}, key=len, reverse=True):
        found: Optional[Any] = getattr(model.get_submodule(name), 'output_fmt', None)
        if found is not None:
            return str(getattr(found, 'value', found)) == 'NHWC'
    return False
