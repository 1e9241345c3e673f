"""Messages name the command that the user has."""

import shlex

import pytest

from timm_alfa.utils import program
from timm_alfa.utils.program import PACKAGE, launch_command, spelling

CLONE = PACKAGE.parent


@pytest.mark.parametrize(
    ('called', 'name', 'start', 'launch'),
    [
        (str(CLONE / 'train.py'), 'train.py', 'python train.py', 'train.py'),
        ('train.py', 'train.py', 'python train.py', 'train.py'),
        ('/usr/bin/timm-alfa', 'timm-alfa train', 'timm-alfa train', '-m timm_alfa.train'),
        ('timm-alfa.exe', 'timm-alfa train', 'timm-alfa train', '-m timm_alfa.train'),
        (str(PACKAGE / '__main__.py'), 'python -m timm_alfa train', 'python -m timm_alfa train', '-m timm_alfa.train'),
        (str(PACKAGE / 'train.py'), 'python -m timm_alfa train', 'python -m timm_alfa train', '-m timm_alfa.train'),
    ],
)
def test_as_it_was_called(called, name, start, launch, monkeypatch):
    monkeypatch.setattr('sys.argv', [called])
    found = spelling('train')
    assert (found.name, shlex.join(found.start), shlex.join(found.launch)) == (name, start, launch)


def test_without_a_clone_only_what_is_installed_exists(monkeypatch, tmp_path):
    monkeypatch.setattr('sys.argv', ['notebook'])
    assert spelling('publish').name == 'hub/publish.py'
    monkeypatch.setattr(program, 'PACKAGE', tmp_path / 'site-packages' / 'timm_alfa')
    assert spelling('publish').name == 'timm-alfa publish'


def test_a_command_without_a_script_is_never_called_one(monkeypatch):
    monkeypatch.setattr('sys.argv', ['train.py'])
    assert spelling('list').name == 'timm-alfa list'


@pytest.mark.parametrize(
    ('precision', 'explicit', 'flag'),
    [
        (None, False, ''),
        ('no', False, ''),
        ('no', True, ' --mixed_precision no'),
        (None, True, ''),
        ('bf16', False, ' --mixed_precision bf16'),
        ('bf16', True, ' --mixed_precision bf16'),
    ],
)
def test_precision_is_the_launchers(precision, explicit, flag):
    command = launch_command('train.py', '--seed', 3, mixed_precision=precision, explicit=explicit)
    assert command == f'accelerate launch{flag} train.py --seed 3'


def test_words_survive_a_shell():
    assert launch_command('train.py', '--resume', 'a run') == "accelerate launch train.py --resume 'a run'"
