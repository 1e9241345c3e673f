"""The features of a model: their shapes, and how much of a forward pass follows each."""

from typing import Any, Iterable, NamedTuple

import torch
from torch import nn

from timm_alfa.blocks.spec import feature_shape, resolve_blocks, shape_text
from timm_alfa.errors import BlockError
from timm_alfa.replay.flops import forward_after
from timm_alfa.utils.text import table


class Feature(NamedTuple):
    """A row of the model's summary.

    Attributes:
        name: Of the module.
        shape: Of its output for one image; a list of shapes if it has several tensors.
        perturbed: Whether the method perturbs it.
        after: Operations of a forward pass after it, as a fraction of the whole.
    """

    name: str
    shape: Any
    perturbed: bool
    after: float


def summary(model: nn.Module, perturbed: Iterable[str], input_size) -> list[Feature]:
    """The stages of a model and the features that a method perturbs, in the order in which they are computed.

    Args:
        perturbed: Names of modules.
        input_size: (C, H, W).
    """
    try:
        stages = resolve_blocks(model, 'all')
    except BlockError:  # a model without stages
        stages = ()
    names = [name for name, _ in model.named_modules() if name in {*stages, *perturbed}]
    first = next(model.parameters())
    image = torch.zeros(1, *input_size, device=first.device, dtype=first.dtype)
    training = model.training
    try:
        total, after = forward_after(model.eval(), names, image)
    finally:
        model.train(training)
    shapes = feature_shapes(model, names, input_size)
    perturbed = set(perturbed)
    return [Feature(name, shape, name in perturbed, after[name] / max(total, 1)) for name, shape in shapes.items()]


def features_text(features: list[Feature]) -> str:
    """The summary as a table."""
    rows = [('block', 'output', 'forward pass after it', '')]
    for row in features:
        rows.append((row.name, shape_text(row.shape), f'{row.after:.1%}', 'perturbed' if row.perturbed else ''))
    return table(rows)


@torch.no_grad()
def feature_shapes(model: nn.Module, names, input_size) -> dict[str, Any]:
    """Shape of each named module's output for one image, without the batch; a list of shapes if it returns several.

    Args:
        names: Names of modules.
        input_size: (C, H, W).
    """
    shapes: dict[str, Any] = {}
    handles = []
    for name in names:

        def note_shape(module, args, output, name=name):
            shapes[name] = feature_shape(output)

        handles.append(model.get_submodule(name).register_forward_hook(note_shape))
    first, training = next(model.parameters()), model.training
    try:
        model.eval()(torch.zeros(1, *input_size, device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    return shapes
