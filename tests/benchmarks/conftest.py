import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / 'benchmarks'


@pytest.fixture(scope='session')
def load_script():
    """Imports a script of benchmarks/ under another module name."""

    def load(name):
        sys.path.insert(0, str(FOLDER))  # for the modules next to it
        try:
            spec = importlib.util.spec_from_file_location(f'benchmarks_{name}', FOLDER / f'{name}.py')
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        finally:
            sys.path.remove(str(FOLDER))

    return load
