"""The optimizer, tried on a small module: what it cannot do shows before anything is written."""

import dataclasses

import torch
from torch import nn

from timm_alfa.errors import ConfigError, first_line
from timm_alfa.training.options.config import OptimConfig
from timm_alfa.training.setup.build import build_optimizer

STEPS, LEARNING_RATE = 2, 0.01


def try_optimizer(options: OptimConfig, device: torch.device, fused: bool = False) -> None:
    """Makes some steps with random gradients.

    Raises:
        ConfigError: The optimizer cannot be built, or fails in a step.
    """
    options = dataclasses.replace(options, layer_decay=None)  # the small module has no layers to group
    generator = torch.Generator().manual_seed(0)
    module = small_module(generator).to(device)
    optimizer = build_optimizer(options, module, [], LEARNING_RATE, fused)
    try:
        for _ in range(STEPS):
            for parameter in module.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(device)
            optimizer.step()
    except Exception as error:  # whatever an optimizer raises that needs more than a loop gives it
        raise ConfigError(
            f"--opt '{options.opt}' fails in a step: {first_line(error)}. Use another, such as sgd or adamw."
        ) from error


@torch.no_grad()
def small_module(generator: torch.Generator) -> nn.Module:
    """Parameters of the usual shapes, few of which divide evenly among processes; the same on every process."""
    module = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Linear(7, 5))
    for param in module.parameters():
        param.copy_(torch.randn(param.shape, generator=generator))
    return module
