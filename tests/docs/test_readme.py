"""The README stays a landing page, and its first two commands are those that other tools run."""

import re

from pages import ROOT, blocks, read

COMMANDS = [
    'python -m pip install . && accelerate launch train.py\n',
    "python -m pip install -e '.[test]' && python -m pytest\n",
]


def test_is_short():
    assert len(read('README.md').splitlines()) <= 170


def test_the_first_two_commands():
    assert blocks('README.md', 'bash') == COMMANDS


def test_the_map_is_of_this_repository():
    lines = blocks('README.md', 'text')[0].splitlines()
    named = []
    for line in lines:
        folder = 'timm_alfa' if line.startswith(' ') else ''
        columns = re.split(r' {2,}', line.strip())
        named += [ROOT / folder / name for name in columns[:-1]]
        assert len(columns) > 1, f'{line!r} does not say what it is for'
    for path in named:
        assert path.exists(), path
    folders = {path for path in (ROOT / 'timm_alfa').iterdir() if (path / '__init__.py').exists()}
    assert folders == {path for path in named if path.parent == ROOT / 'timm_alfa'}


def test_the_version_is_one():
    import timm_alfa

    for page in ('README.md', 'CITATION.cff', 'pyproject.toml', 'CHANGELOG.md'):
        assert timm_alfa.__version__ in read(page), page
