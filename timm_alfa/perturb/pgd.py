"""Projected gradient descent (PGD) attacks on images, and which images withstand them."""

from dataclasses import asdict
from functools import partial
from typing import Optional

import torch
import torch.nn as nn

from timm_alfa.perturb.options import Attack
from timm_alfa.perturb.pixels import Numbers, Pixels, ascend_pixels, pixels_of
from timm_alfa.perturb.precision import at_least_float32


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
