"""A model, and the parameters that a method trains with it."""

from typing import Any, Iterator

import torch
import torch.nn as nn
from timm.models import group_parameters

from timm_alfa.utils import pytree


class ModelWithExtras(nn.Module):
    """A model and what a method trains in addition, in one module, so that wrappers see all parameters.

    Args:
        model: A call of this module is a call of the model.
        extras: The method's parameters and modules, by name.
    """

    touch_extras = False  # whether each output depends on the extras, for wrappers that look for unused parameters

    def __init__(self, model: nn.Module, **extras):
        super().__init__()
        self.model: Any = model  # with the methods of timm's models, if it is one of them
        for name, value in extras.items():
            setattr(self, name, value)

    def forward(self, *args, **kwargs) -> Any:
        output = self.model(*args, **kwargs)
        if self.touch_extras:
            zero = self.zero_loss()
            output = pytree.map_floats(lambda x: x + zero, output)
        return output

    def extra_parameters(self) -> Iterator[nn.Parameter]:
        """The method's own parameters."""
        yield from self.parameters(recurse=False)
        for name, child in self.named_children():
            if name != 'model':
                yield from child.parameters()

    def extras_state_dict(self) -> dict[str, torch.Tensor]:
        """The part of the state dict that is not the model's."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith('model.')}

    def zero_loss(self) -> torch.Tensor:
        """Zero, computed from the method's own parameters: wrappers expect each to have a gradient in every step."""
        return sum((p.sum() for p in self.extra_parameters()), torch.zeros(())) * 0

    def group_matcher(self, coarse: bool = False):
        """Maps parameter names to the model's layer groups.

        Auxiliary norms are in the groups of the norms that they copy; what else the method has is in the last one.
        """
        layers = group_parameters(self.model, self.model.group_matcher(coarse=coarse), reverse=True)
        last = max(layers.values(), default=0)
        return lambda name: layers.get(name.partition('.')[2].replace('/', '.'), last)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: the model's own list, and the method's parameters outside modules."""
        skipped = self.model.no_weight_decay() if hasattr(self.model, 'no_weight_decay') else ()
        return {f'model.{name}' for name in skipped} | {name for name, _ in self.named_parameters(recurse=False)}
