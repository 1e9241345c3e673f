"""Perturbations of images in pixel units, and sign ascent on them. Steps and bounds are in pixels of [0, 1].

A network's input is (pixel - mean) / std. Perturbations are kept in pixel units and divided by std when they are added,
so the same step size and bound mean the same for every normalisation.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Callable, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa.errors import ConfigError
from timm_alfa.perturb import ascent
from timm_alfa.perturb.ascent import at_least_float32
from timm_alfa.perturb.loss_scale import LossScale, gradients

Numbers = Optional[Sequence[float]]


@dataclass(frozen=True)
class Pixels:
    """How a network's input images are normalised.

    Args:
        mean: One number a channel, or one for all.
        std: The same.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of(self, input: torch.Tensor) -> torch.Tensor:
        """Normalised images [B, C, H, W] as pixels, 0 to 1."""
        return at_least_float32(input) * self._channels(self.std, input) + self._channels(self.mean, input)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, C, H, W], 0 to 1, as a network takes them."""
        return (pixels - self._channels(self.mean, pixels)) / self._channels(self.std, pixels)

    def moved(self, input: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """The normalised images [B, C, H, W] with their pixels moved by delta."""
        return (at_least_float32(input) + delta / self._channels(self.std, input)).to(input.dtype)

    def bounds(self, input: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest delta [B, C, H, W] that are within eps and leave pixels in [0, 1].

        A pixel that is outside already (random erasing fills with noise) may only move towards [0, 1].
        """
        pixels = self.of(input)
        return (-pixels).clamp(-eps, 0), (1 - pixels).clamp(0, eps)

    def _channels(self, values: Sequence[float], input: torch.Tensor) -> torch.Tensor:
        if len(values) not in (1, input.shape[1]):
            raise ConfigError(
                f'mean and std have {len(values)} values and the images {input.shape[1]} channels: give '
                'one value a channel, or one for all.'
            )
        return _column(tuple(values), at_least_float32(input[:0]).dtype, input.device)


@cache  # making it anew would make a GPU wait in every step
@torch.inference_mode(False)  # an attack keeps it for a backward pass, wherever it is made first
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def pixels_of(model: nn.Module, mean: Numbers = None, std: Numbers = None) -> Pixels:
    """The normalisation given, or else the one of the model's data config.

    Raises:
        ConfigError: Neither is known.
    """
    known: Any = getattr(model, 'pretrained_cfg', None) or {}
    mean, std = (given if given is not None else known.get(name) for name, given in (('mean', mean), ('std', std)))
    if mean is None or std is None:
        raise ConfigError(
            f'steps and bounds are in pixels, and {type(model).__name__} does not say how its images are '
            'normalised: give mean and std, such as mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5).'
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
        loss: Computes the loss to raise from normalised images.
        input: Normalised images [B, C, H, W].
        pixels: Their normalisation.
        steps: Number of steps.
        step_size: In pixels.
        eps: Bound of every pixel's move.
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

    def gradient(found):
        with torch.enable_grad():
            at = found[0].detach().requires_grad_()
            return gradients(loss(pixels.moved(input.detach(), at)), [at], scale)

    for _ in range(steps):
        delta = ascent.ascend(gradient, [delta], 1, step_size)[0].clamp(low, high)
    return delta.detach()


def in_pixels(flag_name: Callable[[str], str], **sizes: float):
    """Yields a fault for each size above 1, which must have been meant for pixels of 0 to 255."""
    for name, size in sizes.items():
        if size > 1:
            yield f'{flag_name(name)} is {size:g}: pixels lie in [0, 1]; give a fraction such as {size:g}/255.'
