"""Tasks, options, flags and files that the documentation names exist."""

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from dataclasses import fields

import pytest
import timm
import torch
from pages import PAGES, ROOT, prose, read, table_rows
from timm.models import model_entrypoint

import timm_alfa
from timm_alfa.commands import COMMANDS
from timm_alfa.options import default_of
from timm_alfa.tasks import TASKS

SCRIPTS = ('hub/ship.py', 'studies/run.py', 'studies/report.py')
# flags of other programs: accelerate, torchrun, Slurm, mkdocs and benchmarks/
OTHER_FLAGS = {
    *('--multi_gpu', '--num_processes', '--num_machines', '--machine_rank', '--main_process_ip', '--main_process_port'),
    *('--mixed_precision', '--config_file', '--nnodes', '--nproc-per-node', '--rdzv-backend', '--rdzv-endpoint'),
    *(
        '--cpu',
        '--logdir',
        '--nodes',
        '--ntasks-per-node',
        '--gpus-per-node',
        '--signal',
        '--requeue',
        '--strict',
        '--amp',
        '--gpu',
    ),
}
FLAG = re.compile(r'(?<![\w-])--[a-z][a-z0-9_-]*')
PATH = re.compile(
    r'(?<![\w./-])(?:(?:timm_alfa|docs|hub|recipes|studies|results|benchmarks|tests|examples|\.github|\.ci)/'
    r'[\w./-]*[\w/]|(?:train|validate)\.py)'
)
PLACEHOLDERS = ('NAME', 'X.yaml')


def help_of(script: str, *words: str) -> str:
    """What a script prints for --help; in this process, which has imported everything."""
    path, text = ROOT / script, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text):
        patch.setattr(sys, 'argv', [str(path), *words, '--help'])
        patch.setattr(sys, 'path', [str(path.parent), *sys.path])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name='__main__')
    assert ended.value.code in (0, None)
    return text.getvalue()


@pytest.fixture(scope='module')
def known_flags() -> set[str]:
    found = set(OTHER_FLAGS)
    for words in [('timm_alfa/__main__.py', name) for name in COMMANDS] + [(script,) for script in SCRIPTS]:
        found.update(FLAG.findall(help_of(*words)))
    for script in (ROOT / 'examples').glob('*.py'):  # not run: they import optional packages
        found.update(FLAG.findall(script.read_text(encoding='utf-8')))
    return found | {f'--no-{flag[2:]}' for flag in found}


@pytest.mark.parametrize('page', PAGES)
def test_flags_exist(page, known_flags):
    unknown = set(FLAG.findall(read(page))) - known_flags
    assert not unknown, f'{page}: no command has {sorted(unknown)}'


@pytest.mark.parametrize('page', PAGES)
def test_files_exist(page):
    for path in PATH.findall(read(page)):
        if not any(placeholder in path for placeholder in PLACEHOLDERS):
            assert (ROOT / path).exists(), f'{page}: {path} does not exist'


@pytest.mark.parametrize('page', ['README.md', 'docs/methods.md'])
def test_the_table_of_methods_is_complete(page):
    names = [re.search(r'`(\w+)`', row[0])[1] for row in table_rows(page, 'task')]
    assert sorted(names) == timm_alfa.list_tasks()
    for name in names:
        assert f'timm_alfa/tasks/cards/{name}.md' in read(page)


@pytest.mark.parametrize('name', timm_alfa.list_tasks())
def test_the_defaults_on_a_card(name):
    shown = {}
    for names, default, *_ in table_rows(f'timm_alfa/tasks/cards/{name}.md', 'option'):
        shown.update(dict.fromkeys(re.findall(r'`(\w+)`', names), default))
    assert shown == {field.name: as_shown(default_of(field)) for field in fields(TASKS[name].config)}


def as_shown(value) -> str:
    """A default as cards write it."""
    if value is None:
        return 'none'
    if isinstance(value, bool):
        return 'on' if value else 'off'
    if isinstance(value, str):
        return f'`{value}`'
    if isinstance(value, float) and 0 < value < 0.1 and (value * 255) == round(value * 255):
        return f'{value * 255:g}/255'
    return str(value)


def test_the_table_of_blocks():
    with torch.device('meta'):
        model = timm.create_model('resnet18')
    rows = table_rows('docs/blocks.md', 'spec')
    assert len(rows) > 5
    for specs, _, result in rows:
        for spec in re.findall(r'`([^`]+)`', specs):
            names = timm_alfa.resolve_blocks(model, spec)
            if match := re.fullmatch(r'(\d+) names', result):
                assert len(names) == int(match[1]), spec
            elif result.startswith('`') and ',' not in spec:
                assert names == (result.strip('`'),), spec


def test_registered_models_are_those_of_the_page():
    ours = [name for name in timm.list_models() if model_entrypoint(name).__module__.startswith('timm_alfa')]
    assert ours
    for name in ours:
        assert f'`{name}`' in prose('docs/training.md'), name
