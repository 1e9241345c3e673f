"""Turns a block spec such as 'last' or 'units:9' into module names, for any model of timm."""

from typing import Any, Optional, Sequence, Union

import torch.nn as nn

from timm_alfa.blocks.families import callables, convs_of, matching, stages_of, units_of
from timm_alfa.errors import BlockError
from timm_alfa.utils.unwrap import unwrap

_WORDS = (
    "'last', 'all', 'units', 'units:N', 'convs', stage numbers ('3' or '1,3') or module names ('layer3.1', 'layer4.*')"
)


def resolve_blocks(model: nn.Module, spec: Union[str, Sequence[str]]) -> tuple[str, ...]:
    """Module names of the features that a spec means, in the order in which the model registers them.

    That is nearly always the order of the forward pass; no pass is run to find out.

    Args:
        model: Any classifier; wrappers (DistributedDataParallel, torch.compile) are looked through.
        spec: 'last', stage numbers from 1 ('3', '1,3'), 'all', 'units', 'units:N', 'convs', or names and globs; names,
            globs and numbers also as a list or tuple.

    Raises:
        BlockError: The spec names nothing; the message lists what there is.
    """
    model = unwrap(model)
    stages = stages_of(model)
    text = (','.join(map(str, spec)) if isinstance(spec, (list, tuple)) else str(spec)).strip()
    if text == 'convs':
        return _known(convs_of(model), text, model, stages)
    if text in ('last', 'all'):
        return _known(stages[-1:] if text == 'last' else stages, text, model, stages)
    if text.partition(':')[0] == 'units':
        return _known(_units(model, text, stages), text, model, stages)
    names: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(','))):
        names.update(_part(model, part, stages, text))
    if not names:
        raise BlockError(f"block spec '{spec}' is empty. Give one of {_WORDS}.")
    return tuple(name for name in _order(model, stages) if name in names)


def _known(names: Sequence[str], spec: str, model: nn.Module, stages: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise BlockError(f"block spec '{spec}' names nothing in {type(model).__name__}. {_menu(model, stages)}")
    return tuple(names)


def _part(model: nn.Module, part: str, stages: Sequence[str], spec: str) -> set[str]:
    if part.removeprefix('-').isdecimal():
        if not 1 <= int(part) <= len(stages):
            raise BlockError(
                f"stage {part} of block spec '{spec}' does not exist in {type(model).__name__}. {_menu(model, stages)}"
            )
        return {stages[int(part) - 1]}
    found = set(matching(model, (part,)))
    if not found:
        raise BlockError(
            f"block spec '{spec}': no module is named '{part}' in {type(model).__name__}. {_menu(model, stages)}"
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
    """`count` of the names, evenly spaced, the first and the last among them (the last alone for one)."""
    if count == 1:
        return tuple(names[-1:])
    return tuple(names[round(i * (len(names) - 1) / (count - 1))] for i in range(count))


def _order(model: nn.Module, stages: Sequence[str]) -> list[str]:
    """All module names in the order of registration, which nearly every model calls them in."""
    names = [name for name, _ in model.named_modules()]
    return names + [name for name in stages if name not in names]


def feature_shape(feature: Any) -> Optional[list]:
    """Shape of a feature without its batch dimension, for display: a list of shapes where it has several tensors."""
    if hasattr(feature, 'shape'):
        return list(feature.shape[1:])
    values = feature.values() if isinstance(feature, dict) else feature
    return [feature_shape(v) for v in values if v is not None] if isinstance(feature, (list, tuple, dict)) else None
