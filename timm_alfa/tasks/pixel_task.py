"""What methods that perturb images share: options in pixel units, and the search."""

from contextlib import contextmanager, nullcontext
from typing import Iterator

import torch
import torch.nn as nn

from timm_alfa.errors import warn
from timm_alfa.perturb import ascent
from timm_alfa.perturb.loss_scale import LARGEST, LossScale, autocasts_to_fp16
from timm_alfa.perturb.pixels import ascend_pixels, pixels_of
from timm_alfa.replay import norms
from timm_alfa.tasks.base import MethodTask
from timm_alfa.tasks.options.pixel import PixelConfig
from timm_alfa.utils import rng
from timm_alfa.utils.unwrap import unwrap

_IMAGE_SCALE = 2.0**10  # first scale of an image's own loss in fp16
_OUTSIDE = 0.4  # share of values outside [0, 1] above which the normalization cannot be right; noise stays below
_CHECKS = 1  # number of steps in which that is checked


class PixelTask(MethodTask):
    """Trains on images that are perturbed to where the loss is higher; subclasses say which losses are added up.

    Args:
        model: Any classifier.
        criterion: Loss of logits and targets, a mean over the batch.
        config: A `PixelConfig`.
        kwargs: For `MethodTask`.

    Raises:
        ConfigError: How the model's images are normalized is not known.
    """

    only_classifiers = 'it searches in the pixels of a batch of images with classes'

    def __init__(self, model: nn.Module, criterion=None, *, config: PixelConfig, **kwargs):
        pixels = pixels_of(unwrap(model), config.mean, config.std)
        super().__init__(model, criterion, config=config, **kwargs)
        self.pixels = pixels
        self.loss_scale = LossScale(_IMAGE_SCALE)
        self._checks = _CHECKS

    @contextmanager
    def trial(self) -> Iterator[None]:
        """As for every method; the images of a trial may be anything, so they are not checked."""
        checks, self._checks = self._checks, 0
        try:
            with super().trial():
                yield
        finally:
            self._checks = checks

    def is_settled(self) -> bool:
        return not (self._checks and self.perturbs())

    def adversarial_norms(self):
        """The context of passes with perturbed images: which norms they go through."""
        return nullcontext()

    def attack(self, input: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Perturbs images to where the loss is higher.

        No running statistic moves. Random parts of the model (dropout) draw the same in every step of the search and
        in the pass that follows it.

        Returns:
            The perturbed images, normalized like the input, and delta in pixels: both [B, C, H, W].
        """
        self._check(input)
        config = self.config
        is_fp16 = input.dtype == torch.float16 or autocasts_to_fp16(input.device)

        def loss(images: torch.Tensor) -> torch.Tensor:
            with rng.preserve_rng(images.device):
                found = self.loss_of(images, target)
            return found * _per_image(found, len(images)) if is_fp16 else found

        with norms.freeze_running_stats(self.extras or self.model), self.adversarial_norms():
            delta = ascend_pixels(
                loss,
                input,
                self.pixels,
                steps=config.steps,
                step_size=config.step_size,
                eps=config.eps,
                random_start=config.random_start,
                scale=self.loss_scale if is_fp16 else None,
            )
        return self.pixels.add_delta(input.detach(), delta), delta

    def loss_of(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of images, without the wrapper around the model."""
        output = self.objective.call(self.model, images, target)
        return self.objective.loss(output, images, target)

    def delta_norm(self, delta: torch.Tensor) -> torch.Tensor:
        """Mean l2 norm of an image's perturbation, in pixels of [0, 1]."""
        return ascent.sample_norm([delta])

    def _check(self, input: torch.Tensor) -> None:
        """Warns, in the first step, if undoing the normalization does not lead to pixels in [0, 1]."""
        if not self._checks:
            return
        self._checks -= 1
        pixels = self.pixels.of(input.detach())
        share = ((pixels < -0.01) | (pixels > 1.01)).float().mean().item()
        if share > _OUTSIDE:
            self._checks = 0
            warn(
                f"{share:.0%} of the images' values are outside [0, 1] after undoing mean={self.pixels.mean} and "
                f'std={self.pixels.std}, so step size and bound do not have the size they name: pass the mean and std '
                'of the loader.'
            )


def _per_image(loss: torch.Tensor, count: int) -> float:
    """The factor that makes the loss of one image out of a mean over the batch, as far as fp16 allows."""
    return min(count, LARGEST / _IMAGE_SCALE) if loss.dtype == torch.float16 else count
