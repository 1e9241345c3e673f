"""A factor of the loss for searches in fp16, where gradients underflow."""

from typing import Any, Optional, Sequence

import torch

from timm_alfa.utils import pytree

LARGEST, SMALLEST = 2.0**15, 2.0**-15  # fp16 has no larger power of 2
FALL, RISE, STEADY = 0.25, 2.0, 200


class LossScale:
    """A power of 2 that keeps gradients of a search from underflowing; their sign does not depend on it.

    It falls when a gradient of a finite loss is not finite: what was infinite on the way is NaN at the feature and has
    no sign, and often the whole gradient is. A loss that is not finite itself does not count. After `STEADY` finite
    gradients the scale rises again, but never above its start: a network that never overflows is searched at one scale.
    Everything stays on the device. The training step is left to `torch.amp.GradScaler`, which works in the same way.

    Args:
        start: The first scale, and the largest.
    """

    def __init__(self, start: float = LARGEST):
        self.start = start
        self._value, self._steady = torch.tensor(start), torch.tensor(0)

    def __call__(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the scale."""
        self._value, self._steady = self._value.to(loss.device), self._steady.to(loss.device)
        return loss * self._value

    def update(self, loss: torch.Tensor, grads: Sequence[Optional[torch.Tensor]]) -> None:
        """Lowers or raises the scale after the gradients of a scaled loss."""
        finite = torch.stack([g.isfinite().all() for g in grads if g is not None]).all()
        steady = torch.where(finite, self._steady + 1, 0)
        value = torch.where(steady == STEADY, (self._value * RISE).clamp_max(self.start), self._value)
        overflowed = loss.detach().isfinite() & ~finite
        self._value = torch.where(overflowed, (self._value * FALL).clamp_min(SMALLEST), value)
        self._steady = steady % STEADY

    def state_dict(self) -> dict[str, Any]:
        """The scale, and how many gradients in a row were finite."""
        return {'value': self._value.item(), 'steady': self._steady.item()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._value, self._steady = torch.tensor(state['value']), torch.tensor(state['steady'])


def autocasts_to_fp16(device: torch.device) -> bool:
    """Whether autocast to fp16 is on."""
    return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16


def underflows(features: Any, output: Any) -> bool:
    """Whether gradients at these features are in fp16, where they can underflow.

    Args:
        features: A tensor, or a nested list, tuple or dict of tensors.
        output: What the model returned.
    """
    in_half = any(x.dtype == torch.float16 for x in pytree.floats(features))
    return in_half or autocasts_to_fp16(pytree.device_of(output))


def gradients(loss: torch.Tensor, at: Sequence[torch.Tensor], scale: Optional[LossScale], **kwargs) -> tuple:
    """Gradients of a loss, up to a positive factor.

    Args:
        at: Tensors.
        scale: Of the loss; None: it is not scaled.
        kwargs: For `torch.autograd.grad`.
    """
    if scale is None:
        return torch.autograd.grad(loss, at, **kwargs)
    grads = torch.autograd.grad(scale(loss), at, **kwargs)
    if any(g is not None for g in grads):
        scale.update(loss, grads)
    return grads
