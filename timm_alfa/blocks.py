"""Turns a block spec such as 'last' or 'units:9' into module names, for any model of timm.

`FAMILIES` states the answers for some families. Everything else is derived from what timm knows of a model:
`feature_info` names the ends of stages, `group_matcher` the units that layer-wise learning-rate decay tells apart.
"""
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Iterable, Optional, Sequence

import torch.nn as nn

from timm_alfa.errors import BlockError
from timm_alfa.wrappers import unwrapped

_STEM = re.compile(r'(stem|conv|bn|act|norm|patch_embed|layer0|$)', re.IGNORECASE)
_WORDS = ("'last', 'all', 'units', 'units:N', 'convs', stage numbers ('3' or '1,3') "
          "or module names ('layer3.1', 'layer4.*')")


@dataclass(frozen=True)
class Family:
    """The features of one family, as globs over module names. What is left empty is derived.

    Args:
        module: The Python module that defines the model's class, without its package.
        stages: Outputs of the stages.
        units: Outputs of the stem and of every residual unit.
    """
    module: str
    stages: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


FAMILIES = (
    Family('resnet', stages=('layer?',), units=('act1', 'layer?.*')),
    Family('resnet_cifar', stages=('layer?',), units=('act1', 'layer?.*')),
    Family('efficientnet', stages=('blocks.*',), units=('bn1', 'blocks.*.*')),
    Family('coat', stages=('serial_blocks?.*', 'parallel_blocks.*')),
    Family('crossvit', stages=('blocks.*',), units=('blocks.*',)),
    Family('densenet', stages=('features.denseblock?',), units=('features.norm0', 'features.denseblock?.*')),
    Family('gemma4_vit', stages=('encoder.layers.*', 'encoder.blocks.*')),
    Family('hrnet', stages=('layer1', 'stage?'), units=('act2', 'layer1', 'stage?.*')),
    Family('mobilenetv5', stages=('blocks.*',)),
    Family('mvitv2', stages=('stages.*',)),
    Family('nasnet', stages=('cell_5', 'cell_11', 'cell_17'), units=('conv0', 'cell_*', 'reduction_cell_?')),
    Family('pnasnet', stages=('cell_3', 'cell_7', 'cell_11'), units=('conv_0', 'cell_*')),
    Family('twins', stages=('blocks.*.*',), units=('blocks.*.*',)),
    Family('volo', stages=('network.*',)),
    Family('xception', stages=('block3', 'block12', 'act4'), units=('act2', 'block*')),
    Family('xception_aligned', stages=('blocks.*',), units=('stem', 'blocks.*')),
)


def resolve_blocks(model: nn.Module, spec: str) -> tuple[str, ...]:
    """Module names of the features that a spec means, in forward order.

    Args:
        model: Any classifier; wrappers (DistributedDataParallel, torch.compile) are looked through.
        spec: 'last', stage numbers from 1 ('3', '1,3'), 'all', 'units', 'units:N', 'convs', or names and globs.

    Raises:
        BlockError: The spec names nothing; the message lists what there is.
    """
    model = unwrapped(model)
    stages = _stages(model)
    text = str(spec).strip()
    if text == 'convs':
        return _known(_convs(model), text, model, stages)
    if text in ('last', 'all'):
        return _known(stages[-1:] if text == 'last' else stages, text, model, stages)
    if text.partition(':')[0] == 'units':
        return _known(_units_of(model, text, stages), text, model, stages)
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
            raise BlockError(f"stage {part} of block spec '{spec}' does not exist in {type(model).__name__}. "
                             f'{_menu(model, stages)}')
        return {stages[int(part) - 1]}
    found = set(_matching(model, (part,)))
    if not found:
        raise BlockError(f"block spec '{spec}': no module is named '{part}' in {type(model).__name__}. "
                         f'{_menu(model, stages)}')
    return found


def _menu(model: nn.Module, stages: Sequence[str]) -> str:
    listed = ', '.join(f'{i} = {name}' for i, name in enumerate(stages, 1)) or 'none known'
    names = [name for name in _modules(model) if '.' not in name]
    return f"Stages: {listed}. Modules: {', '.join(names)}. Valid: {_WORDS}."


def _units_of(model: nn.Module, spec: str, stages: Sequence[str]) -> Sequence[str]:
    units = _units(model, stages)
    if spec == 'units':
        return units
    count = spec.partition(':')[2]
    if not count.isdecimal() or not 1 <= int(count) <= len(units):
        raise BlockError(f"block spec '{spec}': N must be a number from 1 to {len(units)} for "
                         f'{type(model).__name__}, as in units:{min(9, len(units))}.')
    return evenly(units, int(count))


def evenly(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of the names, evenly spaced, the first and the last among them (the last alone for one)."""
    if count == 1:
        return tuple(names[-1:])
    return tuple(names[round(i * (len(names) - 1) / (count - 1))] for i in range(count))


def _family(model: nn.Module) -> Family:
    """The row of the model's class or of the nearest class it is derived from."""
    for cls in type(model).__mro__:
        for row in FAMILIES:
            if row.module == cls.__module__.rpartition('.')[2]:
                return row
    return Family('')


def _stages(model: nn.Module) -> tuple[str, ...]:
    return _matching(model, _family(model).stages) or _derived_stages(model) or _last_child(model)


def _units(model: nn.Module, stages: Sequence[str]) -> tuple[str, ...]:
    return _matching(model, _family(model).units) or _derived_units(model) or tuple(stages)


def _convs(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that can be called, by name: neither the root nor ModuleLists."""
    return {name: module for name, module in model.named_modules()
            if name and type(module).forward is not nn.Module.forward}


def _matching(model: nn.Module, globs: Iterable[str]) -> tuple[str, ...]:
    """Modules whose names match one of the globs, a `*` never reaching over a dot."""
    globs = tuple(globs)
    return tuple(name for name in _modules(model) if any(_matches(name, glob) for glob in globs))


def _matches(name: str, glob: str) -> bool:
    parts, patterns = name.split('.'), glob.split('.')
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _feature_names(model: nn.Module) -> list[str]:
    """Names in `feature_info` that are modules, in order, without duplicates."""
    info = getattr(model, 'feature_info', None) or ()
    rows = getattr(info, 'info', info)
    modules = _modules(model)
    return list(dict.fromkeys(row['module'] for row in rows if row.get('module') in modules))


def _derived_stages(model: nn.Module) -> tuple[str, ...]:
    """Stages from `feature_info`, without the stem.

    They are the rows in the container that holds most of them, and that container's last child, which often has no row.
    """
    names = _feature_names(model)
    parents = [name.rpartition('.')[0] for name in names]
    home = max(parents, key=parents.count, default='')
    if home:
        inside = [name for name, parent in zip(names, parents, strict=True) if parent == home]
        last = [name for name in _modules(model) if name.rpartition('.')[0] == home][-1:]
        names = list(dict.fromkeys(inside + last))
    return tuple(_without_stem(names))


def _without_stem(names: list[str]) -> list[str]:
    body = [i for i, name in enumerate(names) if not _STEM.match(name.rpartition('.')[2])]
    return names[body[0] if body else min(1, len(names) - 1):] if names else []


def _derived_units(model: nn.Module) -> tuple[str, ...]:
    """The stem, and the modules whose whole name matches a numbering pattern of `group_matcher`."""
    patterns = [re.compile(pattern) for pattern in _group_patterns(model) if '(' in pattern]
    units = [name for name in _modules(model) if name.rpartition('.')[2].isdigit()
             and any(pattern.fullmatch(name) for pattern in patterns)]
    if not units:
        return ()
    names = list(_modules(model))
    stem = [name for name in (*_feature_names(model)[:1], 'stem', 'patch_embed') if name in names]
    first = [name for name in stem if not any(_nested(name, unit) for unit in units)][:1]
    return tuple(sorted({*first, *units}, key=names.index))


def _nested(a: str, b: str) -> bool:
    return f'{a}.'.startswith(f'{b}.') or f'{b}.'.startswith(f'{a}.')


def _group_patterns(model: nn.Module) -> list[str]:
    try:
        matcher = model.group_matcher(coarse=False)
    except (AttributeError, TypeError, NotImplementedError):
        return []
    specs = matcher.get('blocks', ()) if isinstance(matcher, dict) else ()
    specs = [specs] if isinstance(specs, str) else specs
    return [spec if isinstance(spec, str) else spec[0] for spec in specs]


def _last_child(model: nn.Module) -> tuple[str, ...]:
    """For a model without any such information: the child before the last one with parameters, the classifier."""
    children = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
    return tuple(children[-2:-1])


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
