"""Imports that wait until something is needed: torch and timm take seconds, `--help` should not."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from pkgutil import resolve_name
from types import ModuleType
from typing import Any


def lazy_names(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` that imports names when they are first read (PEP 562).

    Args:
        package: Its `__name__`.
        places: The module of each name; a submodule is its own.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        module = import_module(places[name])
        value = module if module.__name__ == f'{package}.{name}' else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return find


def late(place: str) -> Callable[..., Any]:
    """A function that imports the one it stands for when it is called.

    Args:
        place: Such as 'package.module:function'.
    """
    return lambda *args, **kwargs: resolve_name(place)(*args, **kwargs)


def after_import(module: str, action: Callable[[], Any]) -> None:
    """Runs an action once a module is imported: now, if it is already."""
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _AfterImport(module, action))


class _AfterImport(MetaPathFinder):
    """Finds one module as others would, and runs an action when it has been executed."""

    def __init__(self, module: str, action: Callable[[], Any]):
        self.module, self.action = module, action

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.module:
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            vars(spec.loader)['exec_module'] = partial(self._execute, spec.loader)
        return spec

    def _execute(self, loader: Any, module: ModuleType) -> None:
        """Takes the place of a loader's `exec_module`, once."""
        del vars(loader)['exec_module']
        loader.exec_module(module)
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self.action()
