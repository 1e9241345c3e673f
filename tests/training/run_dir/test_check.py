"""A folder that cannot be used is refused before data and model are read, and a run that never trained is in no way."""

import os
import sys

import pytest

import train
from timm_alfa.errors import AlfaError, ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.run_dir.check import check_folder
from timm_alfa.training.run_dir.folder import LOCK, choose_folder
from timm_alfa.training.setup import prepare


def config(output, *argv):
    return parse_args(['--output', str(output), '--experiment', 'run', *argv])


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    for argv in ((), ('--dry-run',)):
        assert check_folder(config(tmp_path / 'a' / 'b', *argv)) == tmp_path / 'a' / 'b' / 'run'
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('argv', [(), ('--dry-run',)])
def test_what_cannot_be_written_is_one_line(argv, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    for output, reason in ((tmp_path / 'file', 'Not a directory'), (tmp_path / ('y' * 300), 'too long')):
        with pytest.raises(ConfigError, match=f'cannot write in .*{reason}'):
            check_folder(config(output, *argv))
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # as for a user without rights: tests may run as root
    with pytest.raises(ConfigError, match='cannot write in .*Permission denied. Use another --output'):
        check_folder(config(tmp_path, *argv))


def untrained(folder, *more):
    folder.mkdir()
    for name in (LOCK, 'config.json', *more):
        (folder / name).touch()
    (folder / 'args.yaml').write_text('epochs: 1\nenvironment: {commit: null}\n')


def test_a_run_that_ended_before_its_first_state_is_no_obstacle(tmp_path):
    untrained(tmp_path / 'run')
    (tmp_path / 'run' / 'last').mkdir()
    assert choose_folder(config(tmp_path)) == tmp_path / 'run'


@pytest.mark.parametrize('name', ['summary.csv', 'result.json', 'model_last.safetensors', 'notes.txt'])
def test_anything_more_than_that_is_kept(name, tmp_path):
    untrained(tmp_path / 'run', name)
    with pytest.raises(ConfigError, match='already holds a run'):
        choose_folder(config(tmp_path))


def test_a_run_to_resume_that_cannot_be_read_says_so(tmp_path, monkeypatch):
    untrained(tmp_path / 'run')

    def refuse(path):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr('timm_alfa.training.run_dir.folder.is_resumable', refuse)
    with pytest.raises(ConfigError, match="--resume is '.*', which cannot be read: Permission denied"):
        choose_folder(config(tmp_path, '--resume', str(tmp_path / 'run')))


@pytest.mark.parametrize(
    ('argv', 'part'),
    [
        (('--resume', 'nowhere'), "--resume is 'nowhere', which is not a run's folder"),
        (('--experiment', 'taken'), 'already holds a run'),
        (('--output', 'taken/summary.csv'), 'cannot write in'),
    ],
)
def test_wrong_folders_are_found_first(argv, part, tmp_path, monkeypatch):
    """Before data and model, and with the exit code of wrong options."""
    untrained(tmp_path / 'taken', 'summary.csv')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare, 'prepare', lambda config: pytest.fail('it was built first'))
    monkeypatch.setattr(sys, 'argv', ['train.py', '--output', '.', *argv])
    with pytest.raises(AlfaError, match=part) as caught:
        train.main()
    assert caught.value.exit_code == 2
