"""Projected gradient ascent on images, and which of them withstand it."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional

import torch
import torch.nn as nn

from timm_alfa.options import option
from timm_alfa.perturb.ascent import at_least_float32
from timm_alfa.perturb.pixels import Numbers, Pixels, ascend_pixels, in_pixels, pixels_of


@dataclass(frozen=True)
class AttackConfig:
    """Options of the attack that robust accuracy is measured under."""

    attack_steps: int = option(20, 'steps of PGD', low=1)
    attack_step_size: float = option(2 / 255, 'size of a step, in pixels of [0, 1]', above=0)
    attack_eps: float = option(8 / 255, "bound of a pixel's move, in pixels of [0, 1]", above=0)
    attack_restarts: int = option(1, 'attacks on each image; it counts as right if it withstands all', low=1)
    attack_random_start: bool = option(True, 'start each attack at random within the bound')

    def errors(self, flag_name: Callable[[str], str]):
        yield from in_pixels(flag_name, attack_step_size=self.attack_step_size, attack_eps=self.attack_eps)
        if self.attack_restarts > 1 and not self.attack_random_start:
            yield (
                f'{flag_name("attack_restarts")} is {self.attack_restarts} without a random start: every attack would '
                f'be the same. Leave it at 1, or set {flag_name("attack_random_start")}.'
            )

    def options(self) -> dict[str, Any]:
        """By the names that `pgd` takes."""
        return {name.removeprefix('attack_'): value for name, value in vars(self).items() if name.startswith('attack_')}


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
    return _pgd(
        model,
        input,
        target,
        pixels_of(model, mean, std),
        steps=steps,
        step_size=step_size,
        eps=eps,
        restarts=restarts,
        random_start=random_start,
        generator=generator,
    )[0]


def robust_correct(
    model: nn.Module, input: torch.Tensor, target: torch.Tensor, *, mean: Numbers = None, std: Numbers = None, **attack
) -> torch.Tensor:
    """Whether each image is classified correctly, and still is after every attack: booleans [B].

    Arguments as for `pgd`.
    """
    return _pgd(model, input, target, pixels_of(model, mean, std), **attack)[1]


def _pgd(
    model: nn.Module,
    input: torch.Tensor,
    target: torch.Tensor,
    pixels: Pixels,
    *,
    steps: int = 20,
    step_size: float = 2 / 255,
    eps: float = 8 / 255,
    restarts: int = 1,
    random_start: bool = True,
    generator: Optional[torch.Generator] = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of `pgd`, and which of them are classified correctly."""
    input = at_least_float32(input)
    with torch.no_grad(), torch.autocast(input.device.type, enabled=False):
        found, standing = input.clone(), model(input).argmax(-1) == target
        for _ in range(restarts):
            at = standing.nonzero().flatten()
            if not len(at):
                break
            images, classes = input[at], target[at]
            delta = ascend_pixels(
                partial(_raised, model, classes),
                images,
                pixels,
                steps=steps,
                step_size=step_size,
                eps=eps,
                random_start=random_start,
                generator=generator,
            )
            found[at] = pixels.moved(images, delta)
            standing[at] = model(found[at]).argmax(-1) == classes
    return found, standing


def _raised(model: nn.Module, target: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """The summed cross-entropy: with a mean, an image's gradient would depend on the size of the batch."""
    return nn.functional.cross_entropy(model(input), target, reduction='sum')
