"""Losses that are differentiated as soon as they are computed; their gradients wait for the whole loss.

The graph of one perturbed loss is freed before the next one is built. So the losses of several blocks never hold the
activations of more than one tail, and together they hold one set of gradients instead.
"""

from typing import Any, Callable, Iterable, Optional

import torch

from timm_alfa.replay import scalars
from timm_alfa.utils import pytree
from timm_alfa.utils.fsdp import is_sharded


class _StoredGradients(torch.autograd.Function):
    """A loss whose gradients are known; its backward pass returns them."""

    @staticmethod
    def forward(ctx, loss, grads, *inputs):
        ctx.save_for_backward(*grads)  # freed with the graph, as an attribute would not be
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return None, None, *(None if g is None else g * upstream.to(g.dtype) for g in ctx.saved_tensors)


class DeferredLosses:
    """A sum of losses that can be differentiated like any other, although the graphs that computed them are freed.

    Args:
        parameters: Everything that the losses depend on except their features, each once. What is missing here gets no
            gradient.
    """

    def __init__(self, parameters: Iterable[torch.Tensor]):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.gradients: list[Optional[torch.Tensor]] = [None] * len(self.parameters)
        self.features: list[tuple[torch.Tensor, Optional[torch.Tensor]]] = []
        self.values: list[torch.Tensor] = []

    @property
    def possible(self) -> bool:
        """Whether losses may be differentiated at once.

        Gradients of sharded parameters are reduced only in a true backward pass, and a parameter's hooks would see its
        gradients twice.
        """
        return (
            torch.is_grad_enabled()
            and not is_sharded(self.parameters)
            and not any(p._backward_hooks for p in self.parameters)
        )

    def add(self, loss: Callable[[Any], torch.Tensor], given: Any) -> torch.Tensor:
        """Computes and differentiates one more loss.

        Args:
            loss: Computes the scalar loss from `given`.
            given: A feature: a tensor, or a tuple, list or dict of tensors.

        Returns:
            The loss's value, detached: its gradients come from `total`.
        """
        leaf = pytree.map_floats(lambda x: x.detach().requires_grad_(), given)
        leaves = pytree.floats(leaf)
        value = loss(leaf)
        found = list(torch.autograd.grad(value, [*leaves, *self.parameters], allow_unused=True))
        for i in reversed(range(len(self.gradients))):  # frees each pair with its sum: never three sets of gradients
            self.gradients[i] = _sum(self.gradients[i], found.pop())
        self.features += zip(pytree.floats(given), found, strict=True)
        self.values.append(value.detach())
        return self.values[-1]

    def total(self) -> torch.Tensor:
        """The sum of all losses, a scalar, with gradients of the features and parameters that it depends on."""
        known = [(p, g) for p, g in zip(self.parameters, self.gradients, strict=True) if g is not None]
        inputs, gradients = zip(*self.features, *known, strict=True)
        return _StoredGradients.apply(scalars.total(self.values), gradients, *inputs)


def _sum(old: Optional[torch.Tensor], new: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
    if old is None or new is None:
        return new if old is None else old
    return old + new
