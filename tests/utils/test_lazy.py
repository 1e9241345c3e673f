"""Imports that wait, and what happens once timm is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import timm_alfa
from timm_alfa.utils.lazy import after_import, late, lazy_names

PACKAGE = Path(timm_alfa.__file__).parent


def run(code: str, **env) -> str:
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_action_runs_once_after_its_module(tmp_path, monkeypatch):
    (tmp_path / 'lazily_followed.py').write_text('done = True\n')
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    after_import('lazily_followed', lambda: seen.append(sys.modules['lazily_followed'].done))

    from importlib.util import find_spec

    assert find_spec('lazily_followed') and seen == []  # looked for, as libraries do, and not imported
    import lazily_followed

    assert seen == [True] and 'exec_module' not in vars(lazily_followed.__spec__.loader)
    assert [finder for finder in sys.meta_path if type(finder).__name__ == '_AfterImport'] == []
    after_import('lazily_followed', lambda: seen.append('at once'))
    assert seen == [True, 'at once']


def test_names_and_functions_are_found_when_they_are_used():
    find = lazy_names('timm_alfa', {'printable': 'timm_alfa.utils.text', 'gone': 'timm_alfa.no_such'})
    assert find('printable')('a\n') == 'a\\n'
    with pytest.raises(AttributeError, match="module 'timm_alfa' has no attribute 'other'"):
        find('other')
    assert timm_alfa.models.resnet20s is timm_alfa.models.resnet_cifar.resnet20s
    assert late('timm_alfa.utils.text:short_number')(2000) == '2k'
    assert set(timm_alfa.__all__) <= set(dir(timm_alfa))


def test_names_are_registered_with_timm_whichever_is_imported_first():
    code = (
        'import sys, timm_alfa\n'
        'assert not {"torch", "timm"} & sys.modules.keys()\n'
        'timm_alfa.errors.AlfaError, timm_alfa.options, timm_alfa.probing\n'
        'import timm\n'
        'assert timm.is_model("resnet20s") and "resnet20s.alfa_c10" in timm.list_pretrained("resnet20s*")'
    )
    run(code)


def imports(path: Path) -> set[str]:
    """Modules that a file imports when it is imported."""
    found = set()
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def reached(module: str) -> dict[str, set[str]]:
    """What each module of the package imports, for all that importing one of them leads to."""
    found, todo = {}, [module]
    while todo:
        name = todo.pop()
        path = PACKAGE.parent.joinpath(*name.split('.'))
        path = path / '__init__.py' if path.is_dir() else path.with_suffix('.py')
        if name in found or not name.startswith('timm_alfa') or not path.is_file():
            continue
        found[name] = imports(path)
        todo += [*found[name], name.rpartition('.')[0]]
    return found


def test_what_registering_needs_does_not_import_timm_first():
    """A module that is half imported when timm is, and that registering needs, would be a circular import."""
    for name, modules in reached('timm_alfa.zoo').items():
        if not name.startswith(('timm_alfa.zoo', 'timm_alfa.models')):
            assert not any(module.partition('.')[0] == 'timm' for module in modules), name


@pytest.mark.parametrize('name', ['models', 'zoo'])
def test_what_registers_imports_timm_before_anything_of_its_own(name):
    tree = ast.parse((PACKAGE / name / '__init__.py').read_text(encoding='utf-8'))
    own = [node.lineno for node in tree.body if 'timm_alfa' in ast.dump(node) and not isinstance(node, ast.Expr)]
    timm = [node.lineno for node in tree.body if isinstance(node, ast.Import) and node.names[0].name == 'timm']
    assert timm and timm[0] < min(own)
