"""Datasets from somebody else, of every kind: images of known formats, regular files, sizes with a limit."""

import io
import os
import stat
import struct
import tarfile
import zlib
from dataclasses import replace

import pytest
from helpers.dataset_files import KINDS, encoded, read_all, write_dataset, write_parquet, write_shard
from helpers.pictures import picture

from timm_alfa.data import DataConfig, create_data
from timm_alfa.errors import DataError

EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n'
MODEL = dict(input_size=(3, 8, 8), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation='bicubic', crop_pct=1.0)


def png(width=8, height=8):
    """A PNG of any size in a few bytes: its rows are compressed zeros."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b'\0' * min(1000, (width + 1) * height))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program in the place of Ghostscript; gives a function that says whether it was run."""
    from PIL import EpsImagePlugin

    folder = tmp_path / 'bin'
    folder.mkdir()
    program = folder / 'gs'
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/run\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(folder), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, 'gs_binary', None)
    return lambda: (tmp_path / 'run').exists()


@pytest.fixture
def make_data(tmp_path, datasets_library):
    """Writes a dataset of one kind with two good images and the given one; gives its options."""

    def make(kind, content):
        good = encoded(picture(0))
        return write_dataset(kind, tmp_path / 'data', [good, content, good])

    return make


@pytest.mark.parametrize('kind', KINDS)
def test_good_images_are_read(kind, make_data):
    images = read_all(make_data(kind, png()))
    assert [image.size for image in images] == [(8, 8)] * 3


@pytest.mark.parametrize('kind', KINDS)
def test_no_image_starts_ghostscript(kind, make_data, ghostscript):
    """Pillow recognizes a format by its content, whatever the file is called."""
    with pytest.raises(DataError, match='cannot read .*cannot identify image file'):
        read_all(make_data(kind, EPS))
    assert not ghostscript()


@pytest.mark.parametrize('loader', ['memory', 'timm'])
def test_no_loader_starts_ghostscript(loader, make_data, ghostscript):
    data = replace(make_data('folder', EPS), loader=loader, val_split='train', skip_corrupt=True)
    loaded = create_data(data, model_config=MODEL).train
    list(loaded)
    assert len(loaded.skipped_indices) == 1 and not ghostscript()


@pytest.mark.parametrize('kind', KINDS)
def test_a_decompression_bomb_is_an_error(kind, make_data):
    with pytest.raises(DataError, match=r'cannot read .*(1\.png|row 1|image 1 of).*pixels'):
        read_all(make_data(kind, png(12_000, 12_000)))


@pytest.mark.parametrize('kind', ['folder', 'torch'])
def test_a_pipe_is_not_waited_for(kind, make_data):
    data = make_data(kind, png())
    (path,) = (os.path.join(at, '1.png') for at, _, files in os.walk(data.data_dir) if '1.png' in files)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(DataError, match=r'cannot read .*not a regular file'):
        read_all(data)


def test_photographs_with_several_frames_are_jpegs(make_data):
    """MPO is what telephones write; as before, its first image is read."""
    frames = io.BytesIO()
    picture(1).save(frames, 'MPO', save_all=True, append_images=[picture(2)])
    assert read_all(make_data('folder', frames.getvalue()))[1].size == (8, 8)


# Hugging Face datasets


def test_a_row_reads_no_file_outside_of_its_dataset(make_data, tmp_path):
    (tmp_path / 'private.png').write_bytes(png())
    root = write_parquet(
        tmp_path / 'gift', dict(image=[dict(bytes=None, path=str(tmp_path / 'private.png'))], label=[0])
    )
    with pytest.raises(DataError, match=r'cannot read row 0 .*private.png.* outside of the dataset'):
        read_all(DataConfig(dataset=f'hfds/{root}', data_dir=str(tmp_path / 'cache')))


def test_a_folder_of_images_for_datasets_is_read(make_data, tmp_path):
    data = make_data('folder', png())
    images = read_all(DataConfig(dataset=f'hfds/{data.data_dir}', data_dir=str(tmp_path / 'cache')))
    assert [image.size for image in images] == [(8, 8)] * 3


@pytest.mark.parametrize('mapped', [False, True])
@pytest.mark.parametrize('key', ['label', 'other'])
def test_labels_are_read_without_decoding_other_columns(key, mapped, ghostscript, tmp_path, make_data):
    """A column of images decodes when a row is read, whatever its name."""
    import datasets

    columns = dict(image=[dict(bytes=png(), path=None)], label=[0], other=[dict(bytes=EPS, path=None)])
    root = write_parquet(tmp_path / 'gift', columns, other=datasets.Image())
    (tmp_path / 'map.txt').write_text('a\nb\n')
    data = DataConfig(
        dataset=f'hfds/{root}',
        data_dir=str(tmp_path / 'cache'),
        target_key=key,
        input_key='image',
        class_map=str(tmp_path / 'map.txt') if mapped else '',
    )
    if key == 'label':
        assert len(read_all(data)) == 1
    else:
        with pytest.raises(DataError, match="column 'other' does not hold one label per row"):
            read_all(data)
    assert not ghostscript()


def test_a_dataset_with_a_script_does_not_run_it(tmp_path, make_data):
    root = tmp_path / 'gift'
    root.mkdir()
    (root / 'gift.py').write_text(f'open({str(tmp_path / "run")!r}, "w")\n')
    with pytest.raises(DataError):
        read_all(DataConfig(dataset=f'hfds/{root}', data_dir=str(tmp_path / 'cache')))
    assert not (tmp_path / 'run').exists()


# tar shards


@pytest.fixture
def shard(tmp_path):
    """Where a shard goes, and the options that read it."""
    path = tmp_path / 'shards' / 'set-train-0000.tar'
    path.parent.mkdir()
    return path, DataConfig(dataset='wds', data_dir=str(path.parent), workers=0)


def sparse_member(name, size):
    """A member that takes no space in the file and `size` bytes in memory."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[124:136] = b'%011o\0' % 0
    block[386 : 386 + 24] = b'%011o\0%011o\0' % (size - 1, 0)
    block[483:495] = b'\x80' + size.to_bytes(11, 'big')
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block)


@pytest.mark.parametrize('extension', ['png', 'cls', 'json'])
def test_a_sparse_member_is_refused(extension, shard):
    path, data = shard
    good = {'png': png(), 'cls': b'0', 'json': b'{"label": 0}'}
    write_shard(path, [{key: value for key, value in good.items() if key != extension}])
    content = path.read_bytes()
    end = len(content.rstrip(b'\0'))
    end += -end % 512
    path.write_bytes(content[:end] + sparse_member(f'000.{extension}', 1 << 40) + b'\0' * 1024)
    with tarfile.open(path) as archive:
        assert archive.getmembers()[-1].size == 1 << 40, 'the shard is what it is meant to be'
    with pytest.raises(DataError, match=f'000.{extension}.*sparse'):
        read_all(replace(data, target_key='label' if extension == 'json' else None))


@pytest.mark.parametrize(
    ('files', 'part'),
    [
        ({'cls': b'1' * 5000}, 'larger than 1000 bytes'),
        ({'cls': b'9' * 40}, 'not an integer of 64 bits'),
        ({'json': b'{"label": ' + b'[' * 100_000 + b'}'}, 'there is no .cls file'),
        ({'json': b'{"label": "' + b'x' * 5000 + b'"}'}, 'longer than 1000 characters'),
        ({'json': b'{"label": {"a": 1}}'}, 'is not text or a number'),
        ({'json': b'{"x": "' + b'x' * (17 << 20) + b'"}'}, 'larger than 16777216 bytes'),
    ],
)
def test_a_label_has_a_limited_size(files, part, shard):
    path, data = shard
    write_shard(path, [{'png': png(), **files}])
    options = dict(target_key='label') if b'"label": ' in files.get('json', b'') and 'cls file' not in part else {}
    with pytest.raises(DataError, match=part) as caught:
        read_all(replace(data, **options))
    assert len(str(caught.value)) < 1500 and '000' in str(caught.value)


def test_a_member_that_leads_back_is_refused(shard):
    """A negative size would make the same member follow itself for ever."""
    path, data = shard
    write_shard(path, [{'png': png(), 'cls': b'0'}])
    content = path.read_bytes()
    block = bytearray(tarfile.TarInfo('loop').tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b'\xff' * 10 + struct.pack('>h', -512)
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    path.write_bytes(content[: 4 * 512] + bytes(block) + b'\0' * 1024)
    with pytest.raises(DataError, match='damaged'):
        read_all(data)


def test_a_shard_that_is_a_pipe_is_not_waited_for(shard):
    path, data = shard
    os.mkfifo(path)
    with pytest.raises(DataError, match='not a regular file'):
        read_all(data)
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize('name', ['../mine.tar', '/etc/passwd', 'a/../../mine.tar', 7])
def test_an_info_file_lists_shards_of_its_folder(name, shard, tmp_path):
    import json

    path, data = shard
    write_shard(tmp_path / 'mine.tar', [{'png': png(), 'cls': b'0'}])
    (path.parent / '_info.json').write_text(json.dumps({'splits': {'train': {'filenames': [name]}}}))
    with pytest.raises(DataError, match='filenames has .* not the name of a file in this folder'):
        read_all(data)


@pytest.mark.parametrize('text', ['[' * 100_000, '{"splits": ' + '[' * 100_000])
def test_an_info_file_that_is_nested_deeply_is_an_error(text, shard):
    path, data = shard
    (path.parent / '_info.json').write_text(text)
    with pytest.raises(DataError, match='nested too deeply'):
        read_all(data)


# class maps


@pytest.mark.parametrize('kind', ['folder', 'hfds', 'wds'])
def test_a_class_map_is_a_regular_file(kind, make_data, tmp_path):
    os.mkfifo(tmp_path / 'map.txt')
    data = make_data(kind, png())
    with pytest.raises(DataError, match=r'map.txt.*not a regular file'):
        read_all(replace(data, class_map=str(tmp_path / 'map.txt')))


def test_a_class_map_runs_no_code(make_data, tmp_path):
    import pickle

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'run'),)

    (tmp_path / 'map.pkl').write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError):
        read_all(replace(make_data('wds', png()), class_map=str(tmp_path / 'map.pkl')))
    assert not (tmp_path / 'run').exists()
