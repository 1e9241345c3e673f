"""Perturbations of images in pixel units, and sign ascent on images. Steps and bounds are in pixels of [0, 1].

A network's input is (pixel - mean) / std. Perturbations are kept in pixel units and divided by std when they are added,
so the same step size and bound mean the same for every normalization.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Callable, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa.errors import ConfigError
from timm_alfa.perturb.ascent import ascend
from timm_alfa.perturb.loss_scale import LossScale, gradients
from timm_alfa.perturb.precision import at_least_float32, search_dtype

Numbers = Optional[Sequence[float]]


@dataclass(frozen=True)
class Pixels:
    """How a network's input images are normalized.

    Attributes:
        mean: One number per channel, or one for all.
        std: The same.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of(self, input: torch.Tensor) -> torch.Tensor:
        """The pixels, 0 to 1, of normalized images [B, C, H, W]."""
        return at_least_float32(input) * self._channels(self.std, input) + self._channels(self.mean, input)

    def add_delta(self, input: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Normalized images [B, C, H, W] with delta, in pixels, added to them."""
        return (at_least_float32(input) + delta / self._channels(self.std, input)).to(input.dtype)

    def bounds(self, input: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest delta [B, C, H, W] that are within eps and leave pixels in [0, 1].

        A pixel that is outside already (random erasing fills with noise) may only change towards [0, 1].
        """
        pixels = self.of(input)
        return (-pixels).clamp(-eps, 0), (1 - pixels).clamp(0, eps)

    def _channels(self, values: Sequence[float], input: torch.Tensor) -> torch.Tensor:
        if len(values) not in (1, input.shape[1]):
            raise ConfigError(
                f'mean and std have {len(values)} values and the images {input.shape[1]} channels: pass '
                'one value per channel, or one for all.'
            )
        return _column(tuple(values), search_dtype(input), input.device)


@cache  # a new one would make a GPU wait in every step
@torch.inference_mode(False)  # whatever mode it is made in first, a backward pass may save it
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def pixels_of(model: nn.Module, mean: Numbers = None, std: Numbers = None) -> Pixels:
    """The normalization given, or else the one of the model's data config.

    Raises:
        ConfigError: Neither is known.
    """
    known: Any = getattr(model, 'pretrained_cfg', None) or {}
    mean = mean if mean is not None else known.get('mean')
    std = std if std is not None else known.get('std')
    if mean is None or std is None:
        raise ConfigError(
            f'steps and bounds are in pixels, and {type(model).__name__} does not say how its images are '
            'normalized: pass mean and std, such as mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5).'
        )
    return Pixels(tuple(map(float, mean)), tuple(map(float, std)))


def ascend_pixels(
    loss: Callable[[torch.Tensor], torch.Tensor],
    input: torch.Tensor,
    pixels: Pixels,
    *,
    steps: int,
    step_size: float,
    eps: float,
    random_start: bool = True,
    scale: Optional[LossScale] = None,
    generator: Optional[torch.Generator] = None,
) -> torch.Tensor:
    """Projected gradient ascent: delta <- clip(delta + step_size * sign(grad)), `steps` times (Madry et al. 2018).

    Args:
        loss: Computes the loss to raise from normalized images.
        input: Normalized images [B, C, H, W].
        pixels: Their normalization.
        steps: Number of steps.
        step_size: In pixels.
        eps: Largest change of a pixel.
        random_start: Start uniformly within eps, drawn from the generator of the device, instead of at zero.
        scale: Of the loss, so that gradients in half precision do not underflow.
        generator: Draws the random start, in place of the device's generator.

    Returns:
        Delta [B, C, H, W], in pixels, in single precision or better.
    """
    low, high = pixels.bounds(input.detach(), eps)
    delta = torch.zeros_like(low)
    if random_start:
        delta = delta.uniform_(-eps, eps, generator=generator).clamp(low, high)

    def gradient(delta: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            leaf = delta.detach().requires_grad_()
            return gradients(loss(pixels.add_delta(input.detach(), leaf)), [leaf], scale)[0]

    for _ in range(steps):
        delta = ascend(gradient, delta, steps=1, step_size=step_size).clamp(low, high)
    return delta.detach()
