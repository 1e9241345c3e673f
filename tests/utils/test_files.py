"""Files that are opened only if they are what they seem to be."""

import os

import pytest

from timm_alfa.utils.files import open_regular


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
