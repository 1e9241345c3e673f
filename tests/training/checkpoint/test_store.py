"""Training states on disk: complete or not there."""

import pytest

from timm_alfa.errors import CheckpointError
from timm_alfa.training.checkpoint.save_load import read_state
from timm_alfa.training.checkpoint.store import CheckpointStore, is_complete, state_folders, write_marker
from timm_alfa.utils.files import temporary_path


def write(store, text='x'):
    return store.write(7, lambda folder: (folder / 'file').write_text(text))


def test_states_are_pruned_after_the_new_one_is_complete(tmp_path):
    store = CheckpointStore(tmp_path / 'last', keep=2)
    folders = [write(store, text) for text in 'abcd']
    assert state_folders(tmp_path / 'last') == folders[2:]

    def fail(folder):
        (folder / 'file').write_text('half')
        raise OSError(28, 'No space left on device')

    with pytest.raises(CheckpointError, match='No space left on device.*is intact'):
        store.write(8, fail)
    assert state_folders(tmp_path / 'last') == folders[2:]
    assert sorted(p.name for p in (tmp_path / 'last').iterdir()) == [p.name for p in folders[2:]]


@pytest.mark.parametrize('damage', ['marker', 'truncated', 'missing', 'temporary'])
def test_an_incomplete_state_is_never_loaded(tmp_path, damage):
    store = CheckpointStore(tmp_path / 'last', keep=3)
    good, bad = write(store), write(store, 'longer')
    if damage == 'marker':
        (bad / 'COMPLETE').unlink()
    elif damage == 'truncated':
        (bad / 'file').write_text('lon')
    elif damage == 'missing':
        (bad / 'file').unlink()
    else:
        bad.rename(temporary_path(bad.parent))
    assert state_folders(tmp_path / 'last') == [good]
    newest = write(store)
    assert is_complete(newest) and (newest.name > bad.name or damage == 'temporary')


def test_what_a_damaged_state_does_to_resuming(tmp_path, caplog):
    """An older one is used, with a warning; alone, it is refused: a start from the beginning would delete it."""
    store = CheckpointStore(tmp_path / 'last', keep=3)
    assert read_state(store.path) is None
    (store.path.parent / 'last').mkdir()
    assert read_state(store.path) is None
    bad = write(store)  # its file is no state.json
    with pytest.raises(CheckpointError, match=f"no state in '.*last' is usable. '.*{bad.name}' is damaged"):
        read_state(store.path)
    (bad / 'file').write_text('cut')
    with pytest.raises(CheckpointError, match='is damaged.*Copy it again'):
        read_state(store.path)

    bad.rename(bad.with_name('000009-update-9'))
    (store.path / '000001-update-1').mkdir()  # what is left of removing an older state
    good = store.path / '000003-update-7'
    good.mkdir()
    (good / 'state.json').write_text('{}')
    write_marker(good)
    with pytest.raises(CheckpointError, match='000003-update-7.*invalid'):  # so it is the one that is used
        read_state(store.path)
    assert '000009-update-9' in caplog.text and '000001' not in caplog.text


def test_a_vanished_run_folder_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match='cannot write .*No such file'):
        write(CheckpointStore(tmp_path / 'gone' / 'last'))


def test_what_others_put_there_stays(tmp_path):
    """Only states, and leftovers of our own, are removed."""
    store = CheckpointStore(tmp_path / 'last')
    first = write(store)
    temporary_path(store.path).mkdir()
    for name in ('notes', '000001-update', '.000009-update-9.tmp', '1-update-1'):
        (store.path / name).mkdir()
    (store.path / '000000-update-1').symlink_to(tmp_path)
    newest = write(store)
    left = {each.name for each in store.path.iterdir()}
    assert first.name not in left and newest.name in left
    assert left - {newest.name} == {'notes', '000001-update', '.000009-update-9.tmp', '1-update-1', '000000-update-1'}
    assert tmp_path.is_dir()
