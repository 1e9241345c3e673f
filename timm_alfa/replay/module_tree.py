"""Module names as places in a tree: what lies above a feature, next to it and at its end."""

from typing import Mapping, Sequence

import torch.nn as nn

from timm_alfa.errors import BlockError


class FeatureTree:
    """Where the modules that give features lie in a model.

    Attributes:
        names: Of the modules that give features.
        modules: All modules of the model by name.
        siblings: For each feature, the modules that may have returned by the time its own module does.
        watched: Modules whose outputs a recorded pass notes, by name: those of the features and all siblings.
        owners: By the last child of a watched Sequential, that Sequential: what the child returns is also its output.

    Raises:
        BlockError: A name is not a module of the model.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]):
        self.names = tuple(names)
        self.modules = dict(model.named_modules())
        missing = [name for name in names if name not in self.modules or not name]
        if missing or not names:
            raise BlockError(
                f"{type(model).__name__} has no module '{', '.join(missing)}': use names as "
                "resolve_blocks(model, 'all') lists them."
            )
        self.siblings = [siblings(self.modules, name) for name in names]

        watched = set(names).union(*self.siblings)
        for name in tuple(watched):
            watched.update(trailing_children(self.modules, name))
        self.watched = {name: module for name, module in self.modules.items() if name in watched}

        self.owners = {}
        for name in watched:
            for child in trailing_children(self.modules, name)[:1]:
                self.owners[child] = name

    def outlets(self, name: str) -> tuple[str, ...]:
        """The modules that return this module's output: itself and, of a Sequential, its last child."""
        return (name, *trailing_children(self.modules, name))


def ancestors(name: str) -> set[str]:
    """Names of all modules around a module, the root ('') included."""
    parts = name.split('.')
    return {'.'.join(parts[:n]) for n in range(len(parts))}


def is_sequence(module: nn.Module) -> bool:
    """Whether calling this module calls its children one after the other, and there are any."""
    return type(module).forward is nn.Sequential.forward and len(module._modules) > 0


def is_callable(module: nn.Module) -> bool:
    """Whether this module can be called, unlike a ModuleList."""
    return type(module).forward is not nn.Module.forward


def trailing_children(modules: Mapping[str, nn.Module], name: str) -> list[str]:
    """A Sequential's last child, that child's last child if it is a Sequential too, and so on."""
    found = []
    while is_sequence(modules[name]):
        name = f'{name}.{list(modules[name]._modules)[-1]}'
        if name not in modules:  # shared with another place in the model, and listed under that name
            break
        found.append(name)
    return found


def siblings(modules: Mapping[str, nn.Module], name: str) -> set[str]:
    """Names of the siblings of a module and of its ancestors, and of the children of lists and Sequentials there."""
    above, outlets = ancestors(name), {name, *trailing_children(modules, name)}
    passed_over = above | outlets
    found = set()
    waiting = [*above, *(outlet for outlet in outlets if is_sequence(modules[outlet]))]
    while waiting:
        parent = waiting.pop()
        children = {f'{parent}.{child}'.lstrip('.') for child, _ in modules[parent].named_children()}
        children = {child for child in children if child in modules and child not in passed_over}

        called = {child for child in children if is_callable(modules[child])}
        found |= called
        waiting += children - called  # of a ModuleList only the children are called
        waiting += [child for child in called if is_sequence(modules[child])]
    return found
