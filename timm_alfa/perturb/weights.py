"""Steps in weight space, and calls of a model with other weights than its own."""

from typing import Any, Callable, Mapping, Optional, Sequence

import torch
from torch import nn
from torch.func import functional_call

from timm_alfa.perturb.precision import at_least_float32


def steepest_step(
    grads: Sequence[Optional[torch.Tensor]], rho: float, scales: Optional[Sequence[Optional[torch.Tensor]]] = None
) -> list[Optional[torch.Tensor]]:
    """The step of length `rho` along which a loss rises most, to first order.

    With scales T, weights are measured in units of T: the step is rho * T^2 g / ||T g|| (Kwon et al.).
    Without them it is rho * g / ||g|| (equation 2 of Foret et al.).

    Args:
        grads: Gradients g of the loss at all weights, up to a positive factor; None for weights that do not reach it.
        rho: Length of the step over all weights together.
        scales: T of each of the weights; None for one.

    Returns:
        The steps, in single precision or better; None for weights without a gradient. They are zero if the gradient is
        zero or not finite: then it has no direction.
    """
    precise = [None if grad is None else at_least_float32(grad) for grad in grads]
    scaled = _times(precise, scales)
    norm = torch.nn.utils.get_total_norm([grad for grad in scaled if grad is not None])
    has_direction = norm.isfinite() & (norm > 0)
    factor = rho / norm
    # zero times infinity would not be zero
    return [None if g is None else torch.where(has_direction, g * factor, 0) for g in _times(scaled, scales)]


def _times(
    grads: Sequence[Optional[torch.Tensor]], scales: Optional[Sequence[Optional[torch.Tensor]]]
) -> list[Optional[torch.Tensor]]:
    if scales is None:
        return list(grads)
    pairs = zip(grads, scales, strict=True)
    return [grad if grad is None or scale is None else grad * scale for grad, scale in pairs]


def moved(weight: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """A weight and a step added, in the weight's dtype; its gradient is the weight's."""
    return (at_least_float32(weight) + step).to(weight.dtype)


class _Holder(nn.Module):
    """What `functional_call` calls: any function, while the model inside has other weights."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def call_with(model: nn.Module, weights: Mapping[str, torch.Tensor], function: Callable[[], Any]) -> Any:
    """Calls a function while some of a model's parameters are replaced; tied ones are replaced together.

    Args:
        weights: Tensors by the names of the parameters whose places they take.
        function: Uses the model.
    """
    return functional_call(_Holder(model), {f'model.{name}': value for name, value in weights.items()}, (function,))
