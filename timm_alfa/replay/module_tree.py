"""Names of modules as places in a tree: what lies above, beside and at the end."""

from typing import Mapping

import torch.nn as nn


def ancestors(name: str) -> set[str]:
    parts = name.split('.')
    return {'.'.join(parts[:n]) for n in range(len(parts))}


def is_sequence(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward and len(module) > 0


def lasts(modules: Mapping[str, nn.Module], name: str) -> list[str]:
    """A Sequential's last child, that child's last child if it is a Sequential too, and so on."""
    found = []
    while is_sequence(modules[name]):
        name = f'{name}.{list(modules[name]._modules)[-1]}'
        if name not in modules:  # shared with another place in the model, and listed under that name
            break
        found.append(name)
    return found


def siblings(modules: Mapping[str, nn.Module], above: set[str], name: str) -> set[str]:
    """Names of the siblings of a module and of its ancestors, and of the children of lists and Sequentials there."""
    own = {name, *lasts(modules, name)}
    found, waiting = set(), [*above, *(child for child in own if is_sequence(modules[child]))]
    while waiting:
        parent = waiting.pop()
        below = {f'{parent}.{child}'.lstrip('.') for child, _ in modules[parent].named_children()}
        below = {child for child in below if child in modules and child not in above | own}
        bare = {child for child in below if type(modules[child]).forward is nn.Module.forward}
        found |= below - bare  # bare lists are never called
        waiting += bare | {child for child in below if is_sequence(modules[child])}
    return found
