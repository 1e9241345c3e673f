"""A loss whose backward pass runs at once; the gradients wait until the whole loss is differentiated.

The graph of one perturbed loss is freed before the next one is built. So the losses of several blocks never hold the
activations of more than one tail; each holds the gradients of its own tail instead.
"""
from typing import Any, Callable, Iterable

import torch

from timm_alfa import trees


class _Handed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, grads, *inputs):
        ctx.save_for_backward(*grads)  # freed with the graph, as an attribute would not be
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return None, None, *(None if g is None else g * upstream.to(g.dtype) for g in ctx.saved_tensors)


def deferred_loss(loss: Callable[[Any], torch.Tensor], given: Any, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """A loss that can be differentiated like any other, although the graph that computed it is freed already.

    Parameters that are sharded (DTensors) are an exception: their loss keeps its graph.

    Args:
        loss: Computes the scalar loss from `given`.
        given: A feature: a tensor, or a tuple, list or dict of tensors.
        parameters: Everything else that the loss depends on. What is missing here gets no gradient.

    Returns:
        The scalar loss, with gradients to `given` and `parameters`.
    """
    parameters = [p for p in parameters if p.requires_grad]
    if any(hasattr(p, 'placements') for p in parameters):  # sharded: only a true backward pass reduces their gradients
        return loss(given)
    leaf = trees.map_floats(lambda x: x.detach().requires_grad_(), given)
    value = loss(leaf)
    grads = torch.autograd.grad(value, [*trees.floats(leaf), *parameters], allow_unused=True)
    return _Handed.apply(value.detach(), grads, *trees.floats(given), *parameters)
