"""Projected gradient ascent on images, and accuracy under it. Steps and bounds are in pixels of [0, 1].

A network's input is (pixel - mean) / std. Perturbations are kept in pixel units and divided by std when they are added,
so the same step size and bound mean the same for every normalisation.
"""
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa import search
from timm_alfa.errors import ConfigError
from timm_alfa.options import option

_HALF = (torch.float16, torch.bfloat16)
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
        return _precise(input) * self._channels(self.std, input) + self._channels(self.mean, input)

    def moved(self, input: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """The normalised images [B, C, H, W] with their pixels moved by delta."""
        return (_precise(input) + delta / self._channels(self.std, input)).to(input.dtype)

    def bounds(self, input: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest delta [B, C, H, W] that are within eps and leave pixels in [0, 1].

        A pixel that is outside already (random erasing fills with noise) may only move towards [0, 1].
        """
        pixels = self.of(input)
        return (-pixels).clamp(-eps, 0), (1 - pixels).clamp(0, eps)

    def _channels(self, values: Sequence[float], input: torch.Tensor) -> torch.Tensor:
        if len(values) not in (1, input.shape[1]):
            raise ConfigError(f'mean and std have {len(values)} values and the images {input.shape[1]} channels: give '
                              'one value a channel, or one for all.')
        return torch.tensor(values, dtype=_precise(input).dtype, device=input.device).view(-1, 1, 1)


def pixels_of(model: nn.Module, mean: Numbers = None, std: Numbers = None) -> Pixels:
    """The normalisation given, or else the one of the model's data config.

    Raises:
        ConfigError: Neither is known.
    """
    known: Any = getattr(model, 'pretrained_cfg', None) or {}
    mean, std = (given if given is not None else known.get(name) for name, given in (('mean', mean), ('std', std)))
    if mean is None or std is None:
        raise ConfigError(f'steps and bounds are in pixels, and {type(model).__name__} does not say how its images are '
                          'normalised: give mean and std, such as mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5).')
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
        scale: float = 1.0,
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
        scale: Factor of the loss, so that gradients in half precision do not underflow.
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
            grad, = torch.autograd.grad(loss(pixels.moved(input.detach(), at)) * scale, at)
        return [grad]

    for _ in range(steps):
        delta = search.ascend(gradient, [delta], 1, step_size)[0].clamp(low, high)
    return delta.detach()


@dataclass(frozen=True)
class AttackConfig:
    """Options of the attack that robust accuracy is measured under."""
    attack_steps: int = option(20, 'steps of PGD', low=1)
    attack_step_size: float = option(2 / 255, 'size of a step, in pixels of [0, 1]', above=0)
    attack_eps: float = option(8 / 255, 'bound of a pixel\'s move, in pixels of [0, 1]', above=0)
    attack_restarts: int = option(1, 'attacks on each image; it counts as right if it withstands all', low=1)
    attack_random_start: bool = option(True, 'start each attack at random within the bound')

    def faults(self, spell: Callable[[str], str]):
        yield from in_pixels(spell, attack_step_size=self.attack_step_size, attack_eps=self.attack_eps)
        if self.attack_restarts > 1 and not self.attack_random_start:
            yield (f"{spell('attack_restarts')} is {self.attack_restarts} without a random start: every attack would "
                   f"be the same. Leave it at 1, or set {spell('attack_random_start')}.")

    def options(self) -> dict[str, Any]:
        """By the names that `pgd` takes."""
        return {name.removeprefix('attack_'): value for name, value in vars(self).items() if name.startswith('attack_')}


def in_pixels(spell: Callable[[str], str], **sizes: float):
    """Yields a fault for each size above 1, which must have been meant for pixels of 0 to 255."""
    for name, size in sizes.items():
        if size > 1:
            yield f'{spell(name)} is {size:g}: pixels lie in [0, 1]; give a fraction such as {size:g}/255.'


def pgd(
        model: nn.Module,
        input: torch.Tensor,
        target: torch.Tensor,
        *,
        steps: int = 20,
        step_size: float = 2 / 255,
        eps: float = 8 / 255,
        restarts: int = 1,
        random_start: bool = True,
        mean: Numbers = None,
        std: Numbers = None,
        generator: Optional[torch.Generator] = None,
) -> torch.Tensor:
    """Adversarial images within eps of the given ones (Madry et al. 2018).

    The attack raises the cross-entropy, without autocast, of the model as it is: put it in eval mode first. Images that
    are misclassified already are returned unchanged. Of several restarts the first that succeeds is returned, or else
    the last.

    Args:
        model: Takes normalised images, gives logits.
        input: Normalised images [B, C, H, W]; half precision is attacked in single precision.
        target: Classes [B].
        steps, step_size, eps, random_start, generator: See `ascend_pixels`.
        restarts: Attacks on each image.
        mean, std: The images' normalisation; None: the model's.

    Returns:
        Normalised images [B, C, H, W].
    """
    return _pgd(model, input, target, pixels_of(model, mean, std), steps=steps, step_size=step_size, eps=eps,
                restarts=restarts, random_start=random_start, generator=generator)[0]


def robust_correct(model: nn.Module, input: torch.Tensor, target: torch.Tensor, *, mean: Numbers = None,
                   std: Numbers = None, **attack) -> torch.Tensor:
    """Whether each image is classified correctly, and still is after every attack: booleans [B].

    Arguments as for `pgd`.
    """
    return _pgd(model, input, target, pixels_of(model, mean, std), **attack)[1]


def _pgd(model: nn.Module, input: torch.Tensor, target: torch.Tensor, pixels: Pixels, *, steps: int = 20,
         step_size: float = 2 / 255, eps: float = 8 / 255, restarts: int = 1, random_start: bool = True,
         generator: Optional[torch.Generator] = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of `pgd`, and which of them are classified correctly."""
    input = _precise(input)
    with torch.no_grad(), torch.autocast(input.device.type, enabled=False):
        found, standing = input.clone(), model(input).argmax(-1) == target
        for _ in range(restarts):
            at = standing.nonzero().flatten()
            if not len(at):
                break
            images, classes = input[at], target[at]
            delta = ascend_pixels(
                partial(_raised, model, classes), images, pixels, steps=steps, step_size=step_size, eps=eps,
                random_start=random_start, generator=generator)
            found[at] = pixels.moved(images, delta)
            standing[at] = model(found[at]).argmax(-1) == classes
    return found, standing


def _raised(model: nn.Module, target: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """The summed cross-entropy: with a mean, an image's gradient would depend on the size of the batch."""
    return nn.functional.cross_entropy(model(input), target, reduction='sum')


def _precise(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in _HALF else x
