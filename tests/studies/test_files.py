"""The runner's files: links that somebody prepared are not followed."""

import pytest

from studies.files import open_log, replace_text
from studies.worker import take_lock


def test_a_record_replaces_a_link_and_leaves_its_target_alone(tmp_path):
    target = tmp_path / 'precious'
    target.write_text('mine')
    record = tmp_path / 'record.json'
    record.symlink_to(target)
    replace_text(record, 'new')
    assert record.read_text() == 'new' and not record.is_symlink()
    assert target.read_text() == 'mine'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['precious', 'record.json']


@pytest.mark.parametrize('mode', ['w', 'a'])
def test_a_log_that_is_a_link_is_refused(tmp_path, mode):
    target = tmp_path / 'precious'
    target.write_text('mine')
    (tmp_path / 'run.log').symlink_to(target)
    with pytest.raises(OSError):
        open_log(tmp_path / 'run.log', mode)
    assert target.read_text() == 'mine'


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / 'run.lock').symlink_to(tmp_path / 'made')
    with pytest.raises(OSError):
        take_lock(tmp_path / 'run.lock')
    assert not (tmp_path / 'made').exists()


def test_logs_and_records_are_written(tmp_path):
    for text in ('one\n', 'two\n'):
        with open_log(tmp_path / 'run.log', 'a') as log:
            log.write(text)
    assert (tmp_path / 'run.log').read_text() == 'one\ntwo\n'
    replace_text(tmp_path / 'record.json', 'text')
    assert (tmp_path / 'record.json').stat().st_mode & 0o777 == 0o644
