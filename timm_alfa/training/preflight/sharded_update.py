"""The optimizer and its clipping, tried on sharded weights: most work element by element, some need complete ones."""

import copy
import dataclasses

import torch
from accelerate import Accelerator
from timm.utils import dispatch_clip_grad
from torch import nn

from timm_alfa.errors import ConfigError, first_line
from timm_alfa.training.options.config import OptimConfig
from timm_alfa.training.preflight.optimizer_step import small_module
from timm_alfa.training.setup.build import build_optimizer
from timm_alfa.utils.fsdp import distribute_like, distribute_state, full_state, full_tensor

STEPS, LEARNING_RATE = 3, 0.01


def try_update(accelerator: Accelerator, options: OptimConfig) -> None:
    """Updates a small sharded module and the same module unsharded, with the same gradients. Every process calls it.

    Raises:
        ConfigError: The optimizer or the clipping fails on sharded weights, or updates them differently.
    """
    from torch.distributed.fsdp import fully_shard

    options = dataclasses.replace(options, layer_decay=None)  # the small module has no layers to group
    generator = torch.Generator().manual_seed(0)
    alone = small_module(generator).to(accelerator.device)
    sharded = copy.deepcopy(alone)
    fully_shard(sharded)
    grads = [[torch.randn(p.shape, generator=generator) for p in alone.parameters()] for _ in range(STEPS)]
    _update(alone, options, grads)
    try:
        _update(sharded, options, grads)
    except Exception as error:  # whatever an optimizer raises on tensors of a kind it was not written for
        raise ConfigError(_message(options, f'fails on sharded weights: {first_line(error)[:120]}')) from error
    pairs = zip(alone.parameters(), sharded.parameters(), strict=True)
    if not all(torch.allclose(p.detach(), full_tensor(q), rtol=1e-4, atol=1e-6) for p, q in pairs):
        raise ConfigError(_message(options, 'updates sharded weights differently from unsharded ones'))


def _update(module: nn.Module, options: OptimConfig, grads: list[list[torch.Tensor]]) -> None:
    optimizer = build_optimizer(options, module, [], LEARNING_RATE)
    for step in grads:
        saved = full_state(optimizer.state_dict())
        optimizer.load_state_dict(distribute_state(saved, optimizer))  # as a resumed run does
        for param, grad in zip(module.parameters(), step, strict=True):
            param.grad = distribute_like(grad.to(param.device), param)
        if options.clip_grad is not None:
            dispatch_clip_grad(module.parameters(), options.clip_grad, options.clip_mode)
        optimizer.step()


def _message(options: OptimConfig, what: str) -> str:
    clipped = f' with --clip-mode {options.clip_mode}' if options.clip_grad is not None else ''
    return f"--opt '{options.opt}'{clipped} {what}. Use --opt sgd or adamw and --clip-mode norm, or launch with DDP."
