"""The wheel holds everything that the commands need, and the source distribution what its tests need."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import timm_alfa

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A folder with the source distribution of a copy of the repository, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp('built')
    source, out = folder / 'source', folder / 'out'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns('.*', '__pycache__', 'build', '*.egg-info', 'output'))
    for path in ('.ci', '.github', '.gitignore', '.pre-commit-config.yaml'):
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, source / path)
    code = (
        'import sys; from setuptools import build_meta as b; out = sys.argv[1]\n'
        'print(b.build_sdist(out)); print(b.build_wheel(out))'
    )
    call([sys.executable, '-c', code, str(out)], cwd=source)
    return out


def call(command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_in_the_wheel(built):
    (wheel,) = built.glob('*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in ROOT.glob('recipes/*/*.yaml'):
        assert f'timm_alfa/{path.relative_to(ROOT)}' in names
    for path in (ROOT / 'timm_alfa').rglob('*'):
        if path.is_file() and '__pycache__' not in path.parts:
            assert str(path.relative_to(ROOT)) in names
    assert {name.partition('/')[0] for name in names} == {'timm_alfa', f'timm_alfa-{timm_alfa.__version__}.dist-info'}

    metadata = zipfile.ZipFile(wheel).read(f'timm_alfa-{timm_alfa.__version__}.dist-info/METADATA').decode()
    assert '](docs/' not in metadata and 'srcset' not in metadata and '[timm](https://' in metadata


def test_what_is_in_the_source_distribution(built):
    (sdist,) = built.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    for folder in ('tests', 'recipes', 'studies', 'results', 'docs', 'benchmarks', 'hub'):
        for path in (ROOT / folder).rglob('*.*'):
            if path.is_file() and path.suffix != '.pyc':
                assert str(path.relative_to(ROOT)) in names
    assert {'train.py', 'validate.py', 'setup.py', '.ci/run', 'CITATION.cff', 'mkdocs.yml'} <= names


def test_commands_run_from_the_wheel_in_an_empty_folder(built, tmp_path):
    (wheel,) = built.glob('*.whl')
    zipfile.ZipFile(wheel).extractall(tmp_path / 'site')
    empty = tmp_path / 'empty'
    empty.mkdir()
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path / 'site'), 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'}

    def module(*words):
        return call([sys.executable, '-m', *words], cwd=empty, env=environment)

    assert '  train ' in module('timm_alfa', '--help')
    assert 'usage: python -m timm_alfa train ' in module('timm_alfa.train', '--help')
    shown = module('timm_alfa', 'train', '--config', 'smoke/alfa', '--dataset', 'digits', '--dry-run')
    assert str(tmp_path / 'site') not in shown and 'task: alfa' in shown
    assert list(empty.iterdir()) == []
