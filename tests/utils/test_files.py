"""Files and folders written whole or not at all and never through a link; files opened only if they are regular."""

import os
import shutil
import stat

import pytest

from timm_alfa.utils import files
from timm_alfa.utils.files import (
    TEMPORARY,
    atomic_file,
    atomic_folder,
    atomic_link,
    check_writable,
    expand_home,
    open_regular,
    remove_leftovers,
    temporary_path,
    write_text,
)


@pytest.fixture
def stranger(tmp_path):
    """A file of somebody else, which no write may reach."""
    path = tmp_path / 'stranger'
    path.write_text('theirs')
    return path


@pytest.fixture
def folder(tmp_path):
    """An empty folder."""
    path = tmp_path / 'folder'
    path.mkdir()
    return path


@pytest.fixture
def umask():
    """022, whatever the machine's."""
    before = os.umask(0o022)
    yield 0o022
    os.umask(before)


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_temporary_names_cannot_be_predicted(folder):
    names = {temporary_path(folder).name for _ in range(100)}
    assert len(names) == 100 and all(TEMPORARY.fullmatch(name) for name in names)


@pytest.mark.parametrize('plant', ['link', 'file', 'folder', 'dangling'])
@pytest.mark.parametrize('write', [atomic_file, atomic_folder], ids=lambda write: write.__name__)
def test_a_planted_temporary_name_is_never_used(write, plant, folder, stranger, monkeypatch):
    """Even if somebody guesses it."""
    planted = folder / f'.timm_alfa-{"0" * 16}.tmp'
    if plant == 'folder':
        planted.mkdir()
    elif plant == 'file':
        planted.write_text('planted')
    else:
        planted.symlink_to(stranger if plant == 'link' else folder.parent / 'made')
    monkeypatch.setattr(files, 'temporary_path', lambda folder: planted)
    with pytest.raises(FileExistsError), write(folder / 'target'):
        raise AssertionError('it was given out')
    assert stranger.read_text() == 'theirs' and not (folder.parent / 'made').exists()
    assert [each.name for each in folder.iterdir()] == [planted.name]


def test_a_link_in_place_of_the_target_is_replaced(folder, stranger):
    (folder / 'a').symlink_to(stranger)
    write_text(folder / 'a', 'ours')
    assert (folder / 'a').read_text() == 'ours' and not (folder / 'a').is_symlink()
    assert stranger.read_text() == 'theirs' and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize('mode', [0o600, 0o640, 0o444, 0o666])
def test_the_permissions_of_a_file_are_kept(mode, folder, umask):
    path = folder / 'a'
    path.write_text('before')
    path.chmod(mode)
    with atomic_file(path) as temporary:
        temporary.write_text('after')
        assert permissions(temporary) & ~(mode | 0o200) == 0, 'nobody else may read it meanwhile'
        temporary.chmod(0o600)  # as safetensors leaves it
    assert (path.read_text(), permissions(path)) == ('after', mode)


def test_a_new_file_has_the_permissions_that_the_umask_leaves(folder, stranger, umask):
    stranger.chmod(0o777)
    (folder / 'link').symlink_to(stranger)
    for name in ('new', 'link'):
        write_text(folder / name, 'x')
        assert permissions(folder / name) == 0o644


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_what_was_there(error, folder):
    def fail(write, path, name):
        with write(path) as temporary:
            (temporary / name).write_text('half')
            raise error

    write_text(folder / 'a', 'before')
    with pytest.raises(error):
        fail(atomic_file, folder / 'a', '')
    with pytest.raises(error):
        fail(atomic_folder, folder / 'b', 'file')
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [('a', 'before')]


def test_a_folder_is_there_when_it_is_complete(folder):
    with atomic_folder(folder / 'a') as temporary:
        (temporary / 'file').write_text('x')
        assert not (folder / 'a').exists()
    assert (folder / 'a' / 'file').read_text() == 'x' and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize('missing', [(), ('symlink',), ('symlink', 'link')])
def test_a_link_is_another_name_of_the_file(missing, folder, stranger, monkeypatch):
    """As far as the file system can, twice; a link that leads elsewhere is replaced."""

    def unsupported(*args, **kwargs):
        raise PermissionError(1, 'Operation not permitted')

    (folder / 'link').symlink_to(stranger)
    for name in missing:
        monkeypatch.setattr(os, name, unsupported)
    for text in ('first', 'second', 'second'):
        write_text(folder / 'file', text)
        atomic_link(folder / 'link', 'file')
        assert (folder / 'link').read_text() == text
    assert stranger.read_text() == 'theirs'
    assert sorted(each.name for each in folder.iterdir()) == ['file', 'link']
    assert (folder / 'link').is_symlink() == (missing == ())


def test_only_leftovers_of_our_own_are_removed(folder, stranger, tmp_path):
    (tmp_path / 'kept').mkdir()
    (tmp_path / 'kept' / 'file').write_text('theirs')
    temporary_path(folder).write_text('half')
    temporary_path(folder).symlink_to(stranger)
    temporary_path(folder).symlink_to(tmp_path / 'kept')
    left = temporary_path(folder)
    left.mkdir()
    (left / 'file').write_text('half')
    others = ['.a.tmp', '.timm_alfa-.tmp', '.timm_alfa-' + 'x' * 16 + '.tmp', 'a.tmp', '.timm_alfa-' + '0' * 16]
    for name in others:
        (folder / name).write_text('theirs')
    remove_leftovers(folder)
    assert sorted(each.name for each in folder.iterdir()) == sorted(others)
    assert stranger.read_text() == 'theirs' and (tmp_path / 'kept' / 'file').exists()


def test_leftovers_of_another_user_stay(folder, monkeypatch):
    write_text(folder / 'a', 'x')
    shutil.move(folder / 'a', temporary_path(folder))
    monkeypatch.setattr(os, 'geteuid', lambda: os.getuid() + 1)
    remove_leftovers(folder)
    assert len(list(folder.iterdir())) == 1


def test_check_writable_leaves_no_trace(folder):
    check_writable(folder)
    assert not list(folder.iterdir())
    with pytest.raises(OSError):
        check_writable(folder / 'none')


def test_a_regular_file_is_opened(tmp_path):
    (tmp_path / 'x').write_bytes(b'abc')
    with open_regular(tmp_path / 'x') as file:
        assert file.read() == b'abc'


def test_what_is_not_a_regular_file_is_not_opened(tmp_path):
    (tmp_path / 'secret').write_text('s')
    (tmp_path / 'link').symlink_to('secret')
    (tmp_path / 'folder').mkdir()
    os.mkfifo(tmp_path / 'pipe')
    for name, reason in (
        ('link', 'symbolic link'),
        ('folder', 'not a regular file'),
        ('pipe', 'not a regular file'),
        ('none', 'No such file'),
    ):
        with pytest.raises(OSError, match=reason):
            open_regular(tmp_path / name)


@pytest.mark.parametrize('prefix', ['', 'local-dir:', 'hfds/', 'wds/'])
def test_the_home_folder_is_put_in_for_a_tilde(prefix, monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    assert expand_home(f'{prefix}~/x') == f'{prefix}/home/me/x'
    assert expand_home(f'{prefix}~') == f'{prefix}/home/me'
    for text in ('a/~/b', 'a~', 'hfds/me/name', 'hf-hub:me/~x', ''):
        assert expand_home(text) == text
