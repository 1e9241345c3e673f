"""Imports point one way: a module imports its own layer and the layers below it, nothing above."""

import ast
from pathlib import Path

import pytest

import timm_alfa

PACKAGE = Path(timm_alfa.__file__).parent

# From the ground up; a package stands for everything in it that has no separate line.
LAYERS = (
    'version',
    'utils.text',  # error messages are printable
    'errors',
    'options',
    'utils',
    'models',
    'blocks',
    'perturb',
    'replay',
    'tasks',
    'probing',
    'data',
    'zoo',
    'training.options',
    'training.metrics',
    'training.checkpoint',
    'training.run_dir',
    'training',
    'publishing',
    'commands',
    '',  # timm_alfa/__init__.py, __main__.py, train.py and validate.py
)
ROOT = ('', '__init__', '__main__', 'train', 'validate', 'predict')


def layer_of(module):
    """The longest entry of LAYERS that a module (named without `timm_alfa.`) lies in."""
    parts = module.split('.')
    for end in range(len(parts), -1, -1):
        name = '.'.join(parts[:end])
        if name in LAYERS and (name or module in ROOT):
            return name
    raise AssertionError(f'{module} is in no layer: add it to LAYERS.')


def imported_modules(source):
    """(line, module) of every import of this package in a file, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute here'
            # a name may be a module itself: `from timm_alfa.utils import rng`
            names = [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith('timm_alfa.') and exists(name):
                yield node.lineno, name.removeprefix('timm_alfa.')


def exists(module):
    path = PACKAGE.parent.joinpath(*module.split('.'))
    return path.is_dir() or path.with_suffix('.py').is_file()


def upward_imports(name, source):
    """Lines of a module that import something above its layer."""
    own = LAYERS.index(layer_of(name))
    return [
        f'{name}:{line} imports {module}'
        for line, module in imported_modules(source)
        if LAYERS.index(layer_of(module)) > own
    ]


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(part for part in parts if part != '__init__')


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_upward(path):
    assert upward_imports(module_name(path), path.read_text(encoding='utf-8')) == []


@pytest.mark.parametrize(
    'source',
    [
        'from timm_alfa.training import trainer',
        'from timm_alfa.training.trainer import Trainer',
        'import timm_alfa.training.trainer',
        'def late():\n    from timm_alfa.publishing.card.build import build_card',
    ],
)
def test_a_planted_upward_import_is_found(source):
    assert len(upward_imports('data.datasets.webdataset', source)) >= 1


def test_a_folder_holds_about_a_dozen_files():
    sizes = {folder: len(list(folder.glob('*.py'))) for folder in [PACKAGE, *PACKAGE.rglob('*')] if folder.is_dir()}
    assert {str(folder): size for folder, size in sizes.items() if size > 20} == {}
