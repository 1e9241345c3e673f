"""Projected gradient descent (PGD) attacks on images, and which images withstand them."""

from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Callable, Optional

import torch
import torch.nn as nn

from timm_alfa.options import option
from timm_alfa.perturb.pixels import Numbers, Pixels, ascend_pixels, pixels_of, size_errors
from timm_alfa.perturb.precision import at_least_float32


@dataclass(frozen=True)
class Attack:
    """A PGD attack; sizes are in pixels of [0, 1].

    Attributes:
        steps: Number of steps.
        step_size: Size of a step.
        eps: Largest change of a pixel.
        restarts: Attacks on each image.
        random_start: Start each attack at random within eps.
    """

    steps: int = 20
    step_size: float = 2 / 255
    eps: float = 8 / 255
    restarts: int = 1
    random_start: bool = True


@dataclass(frozen=True)
class AttackConfig:
    """Options of the attack that robust accuracy is measured under."""

    attack_steps: int = option(Attack.steps, 'steps of PGD', low=1)
    attack_step_size: float = option(Attack.step_size, 'size of a step, in pixels of [0, 1]', above=0)
    attack_eps: float = option(Attack.eps, 'largest change of a pixel, in pixels of [0, 1]', above=0)
    attack_restarts: int = option(
        Attack.restarts, 'attacks on each image; it counts as correct if it withstands all', low=1
    )
    attack_random_start: bool = option(Attack.random_start, 'start each attack at random within the bound')

    def errors(self, flag_name: Callable[[str], str]):
        yield from size_errors(flag_name, attack_step_size=self.attack_step_size, attack_eps=self.attack_eps)
        if self.attack_restarts > 1 and not self.attack_random_start:
            yield (
                f'{flag_name("attack_restarts")} is {self.attack_restarts} without a random start: every attack would '
                f'be the same. Leave it at 1, or set {flag_name("attack_random_start")}.'
            )

    def options(self) -> dict[str, Any]:
        """The options by the names that `Attack` gives them."""
        return {field.name: getattr(self, f'attack_{field.name}') for field in fields(Attack)}


def pgd(
    model: nn.Module,
    input: torch.Tensor,
    target: torch.Tensor,
    *,
    mean: Numbers = None,
    std: Numbers = None,
    generator: Optional[torch.Generator] = None,
    **attack,
) -> torch.Tensor:
    """Adversarial images within eps of the given ones (Madry et al. 2018).

    The attack raises the cross-entropy, without autocast, of the model as it is: put it in eval mode first. Images that
    are misclassified already are returned unchanged. Of several restarts the first that succeeds is returned, or else
    the last.

    Args:
        model: Takes normalized images, returns logits.
        input: Normalized images [B, C, H, W]; half precision is attacked in single precision.
        target: Classes [B].
        mean, std: The images' normalization; None: the model's.
        generator: Draws the random starts, in place of the device's generator.
        attack: Fields of `Attack`: steps, step_size, eps, restarts, random_start.

    Returns:
        Normalized images [B, C, H, W].
    """
    return _attack(model, input, target, pixels_of(model, mean, std), Attack(**attack), generator)[0]


def robust_correct(
    model: nn.Module,
    input: torch.Tensor,
    target: torch.Tensor,
    *,
    mean: Numbers = None,
    std: Numbers = None,
    generator: Optional[torch.Generator] = None,
    **attack,
) -> torch.Tensor:
    """Whether each image is classified correctly, and still is after every attack: booleans [B].

    Arguments as for `pgd`.
    """
    return _attack(model, input, target, pixels_of(model, mean, std), Attack(**attack), generator)[1]


def _attack(
    model: nn.Module,
    input: torch.Tensor,
    target: torch.Tensor,
    pixels: Pixels,
    attack: Attack,
    generator: Optional[torch.Generator],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of `pgd`, and which of them are still classified correctly."""
    settings = asdict(attack)
    restarts = settings.pop('restarts')
    input = at_least_float32(input)
    with torch.no_grad(), torch.autocast(input.device.type, enabled=False):
        found, standing = input.clone(), model(input).argmax(-1) == target
        for _ in range(restarts):
            at = standing.nonzero().flatten()
            if not len(at):
                break
            images, classes = input[at], target[at]
            loss = partial(_summed_cross_entropy, model, classes)
            delta = ascend_pixels(loss, images, pixels, generator=generator, **settings)
            found[at] = pixels.add_delta(images, delta)
            standing[at] = model(found[at]).argmax(-1) == classes
    return found, standing


def _summed_cross_entropy(model: nn.Module, target: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """A sum, since with a mean an image's gradient would depend on the size of the batch."""
    return nn.functional.cross_entropy(model(input), target, reduction='sum')
