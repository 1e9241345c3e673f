"""Turns a block spec such as 'last' or 'units:9' into module names, for any model of timm."""

from typing import Any, Optional, Sequence, Union

import torch.nn as nn

from timm_alfa.blocks.families import callables, convs_of, matching, stages_of, units_of
from timm_alfa.errors import BlockError, did_you_mean
from timm_alfa.utils.unwrap import unwrap

WORDS = ('last', 'all', 'units', 'convs')
_WORDS = (
    "'last', 'all', 'units', 'units:N', 'convs', stage numbers ('3' or '1,3') or module names ('layer3.1', 'layer4.*')"
)


def resolve_blocks(model: nn.Module, spec: Union[str, Sequence[str]]) -> tuple[str, ...]:
    """Module names of the features that a spec means, in the order in which the model registers them.

    That is nearly always the order of the forward pass; no pass is run to check it.

    Args:
        model: Any classifier; wrappers (DistributedDataParallel, torch.compile) are looked through.
        spec: 'last', stage numbers from 1 ('3', '1,3'), 'all', 'units', 'units:N', 'convs', or names and globs. Names,
            globs and numbers may also be a list or tuple.

    Raises:
        BlockError: The spec names nothing; the message lists what there is.
    """
    model = unwrap(model)
    stages = stages_of(model)
    text = (','.join(map(str, spec)) if isinstance(spec, (list, tuple)) else str(spec)).strip()

    # a word for a set of features
    names = _named_by_word(model, text, stages)
    if names is not None:
        if not names:
            raise BlockError(f"block spec '{text}' names nothing in {type(model).__name__}. {_menu(model, stages)}")
        return tuple(names)

    # a list of numbers, names and globs
    found: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(','))):
        found.update(_named_by_part(model, part, stages, text))
    if not found:
        raise BlockError(f"block spec '{spec}' is empty. Give one of {_WORDS}.")
    return tuple(name for name in _order(model, stages) if name in found)


def _named_by_word(model: nn.Module, text: str, stages: Sequence[str]) -> Optional[Sequence[str]]:
    """The features that a word means; None if the spec is not one of the words."""
    if text == 'last':
        return stages[-1:]
    if text == 'all':
        return stages
    if text == 'convs':
        return convs_of(model)
    if text.partition(':')[0] == 'units':
        return _units(model, text, stages)
    return None


def _named_by_part(model: nn.Module, part: str, stages: Sequence[str], spec: str) -> set[str]:
    if part.removeprefix('-').isdecimal():
        if not 1 <= int(part) <= len(stages):
            raise BlockError(
                f"stage {part} of block spec '{spec}' does not exist in {type(model).__name__}. {_menu(model, stages)}"
            )
        return {stages[int(part) - 1]}
    found = set(matching(model, (part,)))
    if not found:
        hint = did_you_mean(part, (*WORDS, *callables(model)))
        raise BlockError(
            f"block spec '{spec}': no module is named '{part}' in {type(model).__name__}.{hint} {_menu(model, stages)}"
        )
    return found


def _menu(model: nn.Module, stages: Sequence[str]) -> str:
    listed = ', '.join(f'{i} = {name}' for i, name in enumerate(stages, 1)) or 'none known'
    names = [name for name in callables(model) if '.' not in name]
    return f'Stages: {listed}. Modules: {", ".join(names)}. Valid: {_WORDS}.'


def _units(model: nn.Module, spec: str, stages: Sequence[str]) -> Sequence[str]:
    units = units_of(model, stages)
    if spec == 'units':
        return units
    count = spec.partition(':')[2]
    if not count.isdecimal() or not 1 <= int(count) <= len(units):
        raise BlockError(
            f"block spec '{spec}': N must be a number from 1 to {len(units)} for "
            f'{type(model).__name__}, as in units:{min(9, len(units))}.'
        )
    return evenly(units, int(count))


def evenly(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of the names, evenly spaced, with the first and the last (for one, the last alone)."""
    if count == 1:
        return tuple(names[-1:])
    return tuple(names[round(i * (len(names) - 1) / (count - 1))] for i in range(count))


def _order(model: nn.Module, stages: Sequence[str]) -> list[str]:
    """All module names in the order of registration, in which nearly every model calls them."""
    names = [name for name, _ in model.named_modules()]
    return names + [name for name in stages if name not in names]


def feature_shape(feature: Any) -> Optional[list]:
    """Shape of a feature without its batch dimension, for display; a list of shapes if it has several tensors."""
    if hasattr(feature, 'shape'):
        return list(feature.shape[1:])
    if not isinstance(feature, (list, tuple, dict)):
        return None
    values = feature.values() if isinstance(feature, dict) else feature
    return [feature_shape(value) for value in values if value is not None]


def shape_text(shape: Any) -> str:
    """A shape, or several, in words."""
    if shape and isinstance(shape[0], list):
        return ' and '.join(map(shape_text, shape))
    return 'x'.join(map(str, shape))
