"""Which modules of a model are its stages and its residual units.

`FAMILIES` holds the answers for some families. Everything else is derived from what timm knows about a model:
`feature_info` names the ends of stages, `group_matcher` the units that layer-wise learning-rate decay distinguishes.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Iterable, Sequence

import torch.nn as nn
from torchvision.models._utils import IntermediateLayerGetter

_STEM = re.compile(r'(stem|conv|bn|act|norm|patch_embed|layer0|$)', re.IGNORECASE)


@dataclass(frozen=True)
class Family:
    """The features of one family, as globs over module names. What is empty is derived.

    Attributes:
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


def _family(model: nn.Module) -> Family:
    """The row of the model's class, or of its nearest base class that has one."""
    for cls in type(model).__mro__:
        for row in FAMILIES:
            if row.module == cls.__module__.rpartition('.')[2]:
                return row
    return Family('')


def stages_of(model: nn.Module) -> tuple[str, ...]:
    """The stages of a model, or of the backbone inside it; if none are known, the child before the classifier."""
    inside = [f'{name}.{stage}' for name, backbone in _backbone(model) for stage in _own_stages(backbone)]
    return _own_stages(model) or tuple(inside) or _last_child(model)


def units_of(model: nn.Module, stages: Sequence[str]) -> tuple[str, ...]:
    """The stem and every residual unit, of a model or of the backbone inside it; if none are known, the stages."""
    inside = [f'{name}.{unit}' for name, backbone in _backbone(model) for unit in _own_units(backbone)]
    return _own_units(model) or tuple(inside) or tuple(stages)


def _own_stages(model: nn.Module) -> tuple[str, ...]:
    return matching(model, _family(model).stages) or _derived_stages(model)


def _own_units(model: nn.Module) -> tuple[str, ...]:
    return matching(model, _family(model).units) or _derived_units(model)


def _backbone(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The first module with known stages inside a model that is not timm's and has none itself, with its name."""
    if hasattr(model, 'pretrained_cfg') or _own_stages(model):
        return []
    inside = ((name, module) for name, module in model.named_modules() if name)
    return [(name, module) for name, module in inside if _own_stages(module)][:1]


def convs_of(model: nn.Module) -> tuple[str, ...]:
    """Every 2d convolution."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


def callables(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that can be called, by name: neither the root nor ModuleLists."""
    return {
        name: module for name, module in model.named_modules() if name and type(module).forward is not nn.Module.forward
    }


def matching(model: nn.Module, globs: Iterable[str]) -> tuple[str, ...]:
    """Names of the modules that match one of the globs, in which a `*` never matches a dot."""
    globs = tuple(globs)
    return tuple(name for name in callables(model) if any(_matches(name, glob) for glob in globs))


def _matches(name: str, glob: str) -> bool:
    parts, patterns = name.split('.'), glob.split('.')
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _feature_names(model: nn.Module) -> list[str]:
    """Names in `feature_info` that are those of modules, in order, without duplicates."""
    modules = callables(model)
    if isinstance(model, IntermediateLayerGetter):  # torchvision's, in its detectors and segmenters
        return [name for name in model.return_layers if name in modules]
    info = getattr(model, 'feature_info', None) or ()
    rows = getattr(info, 'info', info)
    return list(dict.fromkeys(row['module'] for row in rows if row.get('module') in modules))


def _derived_stages(model: nn.Module) -> tuple[str, ...]:
    """Stages from `feature_info`, without the stem.

    They are the rows in the container that holds most of them, and that container's last child, which often has no row.
    """
    names = _feature_names(model)
    parents = [_parent(name) for name in names]
    container = max(parents, key=parents.count, default='')
    if container:
        inside = [name for name in names if _parent(name) == container]
        last = [name for name in callables(model) if _parent(name) == container][-1:]
        names = list(dict.fromkeys(inside + last))
    return tuple(_without_stem(names))


def _parent(name: str) -> str:
    return name.rpartition('.')[0]


def _without_stem(names: list[str]) -> list[str]:
    """The names from the first on that is not called like a stem; if all are, without the first of several."""
    for index, name in enumerate(names):
        if not _STEM.match(name.rpartition('.')[2]):
            return names[index:]
    return names[1:] or names


def _derived_units(model: nn.Module) -> tuple[str, ...]:
    """The stem, and the modules whose whole name matches a numbering pattern of `group_matcher`."""
    patterns = [re.compile(pattern) for pattern in _group_patterns(model) if '(' in pattern]
    units = [
        name
        for name in callables(model)
        if name.rpartition('.')[2].isdigit() and any(pattern.fullmatch(name) for pattern in patterns)
    ]
    if not units:
        return ()
    names = list(callables(model))
    stem = [name for name in (*_feature_names(model)[:1], 'stem', 'patch_embed') if name in names]
    first = [name for name in stem if not any(_nested(name, unit) for unit in units)][:1]
    return tuple(sorted({*first, *units}, key=names.index))


def _nested(a: str, b: str) -> bool:
    return f'{a}.'.startswith(f'{b}.') or f'{b}.'.startswith(f'{a}.')


def _group_patterns(model: nn.Module) -> list[str]:
    group_matcher = getattr(model, 'group_matcher', None)
    if group_matcher is None:
        return []
    try:
        matcher = group_matcher(coarse=False)
    except (AttributeError, TypeError, NotImplementedError):
        return []
    specs = matcher.get('blocks', ()) if isinstance(matcher, dict) else ()
    specs = [specs] if isinstance(specs, str) else specs
    return [spec if isinstance(spec, str) else spec[0] for spec in specs]


def _last_child(model: nn.Module) -> tuple[str, ...]:
    """Of a model without any such information: the child before the classifier, the last one with parameters."""
    children = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
    return tuple(children[-2:-1])
