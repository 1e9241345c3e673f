"""Which further arguments of an optimizer are taken from a user, a recipe or a run folder."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from timm_alfa.errors import one_of

# Arguments that have their own flag.
FLAGS = {
    'opt': '--opt',
    'lr': '--lr',
    'weight_decay': '--weight-decay',
    'momentum': '--momentum',
    'eps': '--opt-eps',
    'betas': '--opt-betas',
    'filter_bias_and_bn': '--filter-bias-and-bn',
    'layer_decay': '--layer-decay',
}
# Arguments of timm's factory that are objects and code.
NOT_DATA = ('params', 'model_or_params', 'param_group_fn')
# Arguments of timm's factory that are plain data.
OF_FACTORY = (
    'foreach',
    'fallback_list',
    'fallback_no_weight_decay',
    'layer_decay_min_scale',
    'layer_decay_no_opt_scale',
)


def optimizer_argument_errors(arguments: Mapping[str, Any], origin: str, optimizer: str) -> Iterator[str]:
    """A line for each argument that must not reach timm's optimizer: an unknown name, or not plain data.

    Args:
        arguments: By name.
        origin: Where they come from, for the message: a flag, or a key and its file.
        optimizer: timm's name of it.
    """
    from timm_alfa.models.arguments import value_error

    allowed = constructor_arguments(optimizer)
    defaults = constructor_defaults(optimizer)
    for name, value in arguments.items():
        if name in FLAGS:
            yield f"{origin} has '{name}': use {FLAGS[name]}."
        elif name in NOT_DATA:
            yield f"{origin} has '{name}', which is not an option: leave it out."
        elif allowed is not None and name not in allowed:
            yield f'{origin}: ' + one_of(f'argument of {optimizer}', name, sorted(allowed))
        elif error := value_error(value):
            yield f"{origin} has '{name}', {error}: use numbers, text, booleans, and lists of these."
        elif isinstance(value, str) and isinstance(defaults.get(name), (bool, int, float)):
            kind = 'true or false' if isinstance(defaults[name], bool) else 'a number'
            yield f"{origin} has '{name}', which is '{value}': it must be {kind}."


def constructor_arguments(optimizer: str) -> Optional[frozenset[str]]:
    """Names of an optimizer's further arguments; None if timm does not know it, or it is of another package."""
    names = _parameters(optimizer)
    return None if names is None else frozenset((*names, *OF_FACTORY)) - {*NOT_DATA, *FLAGS}


def constructor_defaults(optimizer: str) -> dict[str, Any]:
    """Defaults of an optimizer's further arguments, as far as they are known."""
    return {name: each.default for name, each in (_parameters(optimizer) or {}).items()}


def _parameters(optimizer: str) -> Optional[Mapping[str, inspect.Parameter]]:
    from timm.optim import get_optimizer_info

    try:
        optimizer_class = get_optimizer_info(optimizer.lower()).opt_class
        if isinstance(optimizer_class, str):  # of another package
            return None
        return inspect.signature(optimizer_class).parameters
    except (ValueError, TypeError):
        return None
