"""Where a file holds a model's weights: under a key, or under a prefix of their names."""

from typing import Any, Mapping

import torch

from timm_alfa.errors import CheckpointError
from timm_alfa.utils.console import logger

# timm's, in the order in which they are taken.
STATE_KEYS = ('state_dict_ema', 'state_dict', 'model_ema', 'model')
COUNTER = 'num_batches_tracked'


def weights_in(loaded: Any, path: object) -> dict[str, torch.Tensor]:
    """The weights in what a file holds: all of it, or what is under a key.

    Args:
        path: Of the file, for messages.

    Raises:
        CheckpointError: There are none, or several under keys that timm does not use.
    """
    if not isinstance(loaded, dict):
        raise CheckpointError(f"checkpoint '{path}' does not hold model weights (a mapping of names to tensors).")
    for key in STATE_KEYS:
        if isinstance(loaded.get(key), dict):
            if not _is_state(loaded[key]):
                raise CheckpointError(f"checkpoint '{path}' does not hold model weights under its key '{key}'.")
            return loaded[key]
    if _is_state(loaded):
        return loaded

    found = [key for key, value in loaded.items() if isinstance(value, dict) and value and _is_state(value)]
    if len(found) > 1:
        raise CheckpointError(
            f"checkpoint '{path}' holds weights under {_listed(found)}: save those to use in a file of their own."
        )
    if not found:
        keys = ', '.join(map(str, loaded)) or 'none'
        raise CheckpointError(
            f"checkpoint '{path}' does not hold model weights (a mapping of names to tensors). Its keys: {keys[:200]}."
        )
    logger.info("weights: found under the key '%s' of '%s'", found[0], path)
    return loaded[found[0]]


def _is_state(value: Mapping) -> bool:
    return all(isinstance(key, str) and isinstance(each, torch.Tensor) for key, each in value.items())


def without_prefix(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], head: tuple[str, ...], path: object
) -> Mapping[str, torch.Tensor]:
    """A model's weights out of a state that holds them under a prefix, such as 'encoder.'; else the state as it is.

    Args:
        own: The model's own state.
        head: Prefixes of names that may be missing, or have other shapes.
        path: Of the file, for messages.

    Raises:
        CheckpointError: Several prefixes fit.
    """
    needed = {
        name: tensor.shape for name, tensor in own.items() if not name.startswith(head) and not name.endswith(COUNTER)
    }
    if not needed or _fits('', needed, state):
        return state
    first = next(iter(needed))
    prefixes = [name.removesuffix(first) for name in state if name.endswith('.' + first)]
    found = [prefix for prefix in prefixes if _fits(prefix, needed, state)]
    if len(found) > 1:
        raise CheckpointError(
            f"checkpoint '{path}' holds the model's weights under {_listed(found)}: save those to use in a file of "
            'their own.'
        )
    if not found:
        return state
    logger.info("weights: found in '%s' under names that begin with '%s'", path, found[0])
    return {name.removeprefix(found[0]): value for name, value in state.items() if name.startswith(found[0])}


def _fits(prefix: str, needed: Mapping[str, torch.Size], state: Mapping[str, torch.Tensor]) -> bool:
    return all(prefix + name in state and state[prefix + name].shape == shape for name, shape in needed.items())


def _listed(names: list[str]) -> str:
    return ' and '.join(f"'{name}'" for name in names)
