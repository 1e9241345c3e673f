"""A loss whose backward pass runs at once, and whose gradients are handed on when the whole loss asks for them.

What its graph holds is freed before the next one is built: the perturbed losses of several blocks never keep more than
one tail's activations, at the cost of one set of gradients.
"""
from typing import Any, Callable, Iterable

import torch

from timm_alfa import trees


class _Handed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, grads, *inputs):
        ctx.grads = grads
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return None, None, *(None if g is None else g * upstream.to(g.dtype) for g in ctx.grads)


def deferred_loss(loss: Callable[[Any], torch.Tensor], given: Any, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """The value of a loss, differentiable as ever, its own graph freed already.

    Args:
        loss: Computes it from `given`.
        given: A feature.
        parameters: All else that the loss depends on.
    """
    parameters = [p for p in parameters if p.requires_grad]
    if any(hasattr(p, 'placements') for p in parameters):  # sharded: only a true backward pass reduces their gradients
        return loss(given)
    leaf = trees.map_floats(lambda x: x.detach().requires_grad_(), given)
    value = loss(leaf)
    grads = torch.autograd.grad(value, [*trees.floats(leaf), *parameters], allow_unused=True)
    return _Handed.apply(value.detach(), grads, *trees.floats(given), *parameters)
