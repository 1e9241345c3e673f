"""Which arguments of a model are taken from a user, a recipe, a run folder or the Hub."""

import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Optional

from timm.models import build_model_with_cfg, create_model, model_entrypoint
from torch import nn

from timm_alfa.errors import did_you_mean

# Names that timm's builder takes out of a model's arguments without declaring them.
_UNDECLARED = (
    'pruned',
    'features_only',
    'out_indices',
    'feature_cls',
    'load_weights',
    'pretrained_custom_load',
    'weights_only',
)
# The fields of a pretrained_cfg that say where weights come from.
WEIGHT_LOCATIONS = ('url', 'file', 'state_dict', 'hf_hub_id', 'hf_hub_filename', 'source', 'custom_load')
_INSTEAD = {
    'pretrained': 'Use --pretrained',
    'checkpoint_path': 'Use --initial-checkpoint to train, --checkpoint to validate',
    'cache_dir': 'Set HF_HUB_CACHE or TORCH_HOME',
    'model_name': 'Use --model',
}
# Arguments of most architectures, some of which their modules handle before the class is called.
_COMMON = (
    'num_classes',
    'in_chans',
    'global_pool',
    'drop_rate',
    'drop_path_rate',
    'img_size',
    'act_layer',
    'norm_layer',
    'aa_layer',
    'bn_momentum',
    'bn_eps',
    'norm_eps',
    'pad_type',
    'block_args',
    'use_naflex',
    'head_conv_bias',
)
_NAFLEX = 'timm.models.naflexvit'
_LENDS = {'timm.models.vision_transformer': _NAFLEX, 'timm.models.eva': _NAFLEX}  # with use_naflex=True
MAX_DEPTH, MAX_VALUES, MAX_TEXT = 6, 1000, 1000


def _parameters(function: Any) -> set[str]:
    """Names of the parameters that a function or class declares; none if it has no signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return set()
    return {
        name for name, each in signature.parameters.items() if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }


FACTORY_OPTIONS = frozenset(
    _parameters(create_model) | _parameters(build_model_with_cfg) | set(_UNDECLARED) | set(WEIGHT_LOCATIONS)
)


def argument_errors(arguments: Mapping[str, Any], origin: str, architecture: Optional[str] = None) -> Iterator[str]:
    """A line for each argument that must not reach timm: an option of its factory, an unknown name, or no plain data.

    Args:
        arguments: By name.
        origin: Where they come from, for the message: a flag, or a key and its file.
        architecture: timm's name of the model without its tag. If None, only factory options and values are checked.
    """
    allowed = constructor_arguments(architecture) if architecture else None
    for name, value in arguments.items():
        if is_factory_option(name):
            yield _factory_error(name, origin)
        elif allowed is not None and name not in allowed:
            hint = did_you_mean(name, allowed)
            yield (
                f"{origin} has '{name}', which is not an argument of {architecture}.{hint} "
                f'Allowed: {", ".join(sorted(allowed))}.'
            )
        elif error := value_error(value):
            yield f"{origin} has '{name}', {error}: use numbers, text, booleans, and lists or mappings of these."


def is_factory_option(name: Any) -> bool:
    """Whether timm's factory would act on an argument, such as cache_dir, before the model's constructor sees it."""
    return name in FACTORY_OPTIONS


def _factory_error(name: str, origin: str) -> str:
    return (
        f"{origin} has '{name}', an option of timm's factory, which decides what files are read and written: only "
        f"arguments of the model's constructor are allowed. {_INSTEAD.get(name, 'Leave it out')}."
    )


def value_error(value: Any) -> Optional[str]:
    """What is wrong with a value, or None."""
    queue, count = [(value, 1)], 0
    while queue:
        each, depth = queue.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            return 'which is too large'
        if isinstance(each, Mapping):
            inner = next((key for key in each if not isinstance(key, str) or is_factory_option(key)), None)
            if inner is not None:
                return f"which holds '{inner}'"
            queue += [(item, depth + 1) for item in each.values()]
        elif isinstance(each, (list, tuple)):
            queue += [(item, depth + 1) for item in each]
        elif isinstance(each, str) and len(each) > MAX_TEXT:
            return 'which is too long'
        elif not (each is None or isinstance(each, (bool, int, float, str))):
            return f'which is a {type(each).__name__}'
    return None


def constructor_arguments(architecture: str) -> Optional[frozenset[str]]:
    """Names that an architecture's constructor may take; None where its module shows no model class to ask.

    timm's entry points pass all keywords on, so the names are read from what their module holds: its model classes
    with their bases, and the configs whose fields keywords replace. Names are a superset of what one class takes:
    its constructor has the last word.
    """
    entrypoint = model_entrypoint(architecture)
    # a deprecated name has a wrapper around the present entry point
    entrypoint = inspect.getclosurevars(entrypoint).nonlocals.get('current_fn') or entrypoint
    module = sys.modules[entrypoint.__module__]
    names = _module_arguments(module)
    if not names:
        return None
    if module.__name__ in _LENDS:
        names |= _module_arguments(sys.modules[_LENDS[module.__name__]])
    names |= _parameters(entrypoint) | set(_COMMON)
    return frozenset(name for name in names if not is_factory_option(name))


def _module_arguments(module: ModuleType) -> set[str]:
    """Parameters of a module's model classes, and fields of its configs."""
    names: set[str] = set()
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    for each in classes:
        if dataclasses.is_dataclass(each):
            names |= _config_arguments(each)
        elif issubclass(each, nn.Module) and not each.__module__.startswith('timm.layers'):
            constructors = [vars(base)['__init__'] for base in each.__mro__ if '__init__' in vars(base)]
            found = set().union(*map(_parameters, constructors))
            names |= found - {'self'} if 'num_classes' in found else set()  # of whole models, not of blocks
    return names


def _config_arguments(config: type) -> set[str]:
    """Fields of a config, and 'conv_padding' for the field `padding` of its own `conv_cfg`."""
    names = set()
    for field in dataclasses.fields(config):
        names.add(field.name)
        inner = field.default_factory
        if field.name.endswith('_cfg') and dataclasses.is_dataclass(inner):
            names |= {field.name.removesuffix('cfg') + each.name for each in dataclasses.fields(inner)}
    return names
