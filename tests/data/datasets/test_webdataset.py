import io
import json
import pickle
import tarfile

import pytest
from helpers.dataset_files import encoded
from helpers.pictures import picture

from timm_alfa.data import AugConfig, DataConfig, create_data, inspect_data
from timm_alfa.data.datasets.webdataset import ShardSource
from timm_alfa.data.datasets.webdataset_layout import layout
from timm_alfa.errors import AlfaWarning, DataError


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def png(seed):
    return encoded(picture(seed))


def write(path, samples, mode='w'):
    """A shard of samples: lists of (extension, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for at, files in enumerate(samples):
            for extension, content in files:
                add(archive, f'./a.b/sample{at:03d}.{extension}', content)


def plain(*seeds):
    return [[('png', png(seed)), ('cls', str(seed % 3).encode())] for seed in seeds]


def info(root, **splits):
    (root / '_info.json').write_text(json.dumps({'name': 'set', 'splits': splits}))


@pytest.fixture
def root(tmp_path):
    """Two training shards of three and two images, one of two to validate on."""
    write(tmp_path / 'set-train-0000.tar', plain(0, 1, 2))
    write(tmp_path / 'set-train-0001.tar', plain(3, 4))
    write(tmp_path / 'set-validation-0000.tar', plain(5, 6))
    return tmp_path


def config(root, **kwargs):
    return DataConfig(dataset='wds/set', data_dir=str(root), **kwargs)


def test_images_and_labels_are_those_of_the_shards_in_any_order(root):
    source = ShardSource(config(root), 'train')
    assert source.targets.tolist() == [0, 1, 2, 0, 1]
    for at in (4, 0, 3, 1):
        assert source.image(at, 'RGB').tobytes() == picture(at).tobytes()
    assert pickle.loads(pickle.dumps(source)).image(4, 'RGB').tobytes() == picture(4).tobytes()
    assert source.label(4) == f"image 1 of shard '{root / 'set-train-0001.tar'}'"


@pytest.mark.parametrize('loader', ['memory', 'timm'])
def test_a_run_sees_what_it_would_see_of_a_folder(tmp_path, make_folder, model_config, loader):
    folder = make_folder(train={'0': 1, '1': 1, '2': 1}, validation={'0': 1, '1': 1, '2': 1})
    write(tmp_path / 'tars' / 'set-train-0.tar', plain(0, 1, 2))
    write(tmp_path / 'tars' / 'set-validation-0.tar', plain(3, 4, 5))
    batches = []
    for data in (
        config(tmp_path / 'tars', batch_size=1, loader=loader, workers=1),
        DataConfig(data_dir=str(folder), batch_size=1, loader=loader, workers=1),
    ):
        loaders = create_data(data, AugConfig(), model_config=model_config, seed=3)
        batches.append([(input.clone(), target.clone()) for input, target in loaders.train])
        loaders.close()
    assert len(batches[0]) == 3
    for (one, label), (other, same) in zip(*batches, strict=True):
        assert one.equal(other) and label.equal(same)


def test_the_info_file_says_the_splits_and_is_held_to_what_it_says(root):
    def listed(name='set-train-0001.tar', length=2):
        info(root, part=dict(filenames=[name], shard_lengths=[length], num_samples=length, name='part'))
        return ShardSource(config(root), 'part')

    assert len(listed()) == 2
    assert set(layout(config(root))) == {'part'}
    with pytest.raises(DataError, match=r'holds 2 samples, the info file says 5'):
        listed(length=5)
    with pytest.raises(DataError, match=r"shard '.*set-train-0009\.tar' does not exist: complete the folder"):
        listed('set-train-0009.tar')
    write(root / 'more.tar', plain(7))
    info(root, part=dict(filenames=['more.tar']), gone=dict(filenames=['gone.tar']))
    assert len(ShardSource(config(root), 'part')) == 1  # whatever other splits lack


@pytest.mark.parametrize(
    ('split', 'error'),
    [
        ({}, "KeyError: 'filenames'"),
        (dict(filenames='a.tar'), "TypeError: filenames is 'a.tar', not a list"),
        (dict(filenames=['a.tar', 'b.tar'], shard_lengths=[1]), 'ValueError: 2 filenames, 1 shard_lengths'),
    ],
)
def test_an_info_file_that_says_too_little_is_an_error(root, split, error):
    info(root, train=split)
    with pytest.raises(DataError, match=rf"_info\.json' does not list splits with their filenames \({error}"):
        layout(config(root))
    info(root)
    with pytest.raises(DataError, match=r'no shards in .*: _info\.json lists none'):
        layout(config(root))


@pytest.mark.parametrize(
    ('name', 'split'),
    [
        ('my-test-set-train-0000.tar', 'train'),
        ('imagenet-val-train-1.tar', 'train'),
        ('validation.0.tar', 'validation'),
    ],
)
def test_the_last_word_for_a_split_in_a_name_counts(tmp_path, name, split):
    write(tmp_path / name, plain(0))
    assert set(layout(config(tmp_path))) == {split}


def test_labels_may_be_a_field_of_the_sidecar_and_names(tmp_path):
    write(
        tmp_path / 'train.0.tar',
        [
            [('png', png(0)), ('json', b'{"kind": "dog", "at": 1, "list": [1], "none": null}')],
            [('json', b'{"kind": "cat", "at": 0}'), ('png', png(1))],
        ],
    )
    assert ShardSource(config(tmp_path, target_key='at'), 'train').targets.tolist() == [1, 0]
    (tmp_path / 'names.txt').write_text('dog\ncat\n')
    source = ShardSource(config(tmp_path, target_key='kind', class_map=str(tmp_path / 'names.txt')), 'train')
    assert (source.targets.tolist(), source.class_names) == ([0, 1], ('dog', 'cat'))
    (tmp_path / 'numbers.pkl').write_bytes(pickle.dumps({0: 1, 1: 0}))
    source = ShardSource(config(tmp_path, target_key='at', class_map=str(tmp_path / 'numbers.pkl')), 'train')
    assert source.targets.tolist() == [0, 1]  # as timm maps them
    with pytest.raises(DataError, match=r"sample000' .* class map '.*names\.txt' lacks '1': add it.*dog, cat"):
        ShardSource(config(tmp_path, target_key='at', class_map=str(tmp_path / 'names.txt')), 'train')
    (tmp_path / 'broken.pkl').write_bytes(b'nothing pickled')
    with pytest.raises(DataError, match=r"cannot read class map '.*broken\.pkl'"):
        ShardSource(config(tmp_path, class_map=str(tmp_path / 'broken.pkl')), 'train')
    info(tmp_path, train=dict(filenames=['train.0.tar'], alt_label='at'))
    assert ShardSource(config(tmp_path), 'train').targets.tolist() == [1, 0]
    (tmp_path / '_info.json').unlink()
    for key, error in (
        (None, r'there is no \.cls file: pass --target-key one of .* at, kind, list, none'),
        ('kind', "its label 'dog' is not an integer: pass --class-map"),
        ('none', "field 'none' is null: remove the sample"),
        ('att', "unknown field --target-key 'att'. Did you mean 'at'"),
    ):
        with pytest.raises(DataError, match=rf"sample '\./a\.b/sample000' of shard '.*train\.0\.tar': {error}"):
            ShardSource(config(tmp_path, target_key=key), 'train')


@pytest.mark.parametrize(
    ('label', 'error'),
    [
        (b'x', "sample001' of shard .*0001\\.tar': its label 'x' is not an integer"),
        (b'1.5', "its label '1.5'"),
        (b'', "its label ''"),
        (b'7', r"image 1 of shard '.*0001\.tar' has label 7, valid are 0\.\.2"),
        (b'1_0', "its label '1_0' is not an integer"),
        ('\u0661'.encode(), "its label '\u0661' is not an integer"),
        (b'-1', 'has label -1, which means none, valid are'),
    ],
)
def test_a_wrong_label_is_named(root, label, error):
    write(root / 'set-train-0001.tar', [plain(3)[0], [('png', png(4)), ('cls', label)]])
    with pytest.raises(DataError, match=error):
        inspect_data(config(root, num_classes=3))


def test_missing_shards_are_an_error_and_unused_ones_a_warning(root):
    write(root / 'set-train-0003.tar', plain(7))
    with pytest.raises(
        DataError, match=r"shards between '.*set-train-0001\.tar' and 'set-train-0003\.tar' are missing"
    ):
        inspect_data(config(root))
    (root / 'set-train-0003.tar').rename(root / 'set-train-0002.tar.gz')
    with pytest.warns(AlfaWarning, match=r'not used: set-train-0002\.tar\.gz \(unpack compressed ones first\)'):
        assert inspect_data(config(root)).train_images == 5


def test_numbers_without_zeros_before_them_count_on(tmp_path):
    for number in (0, 1, 9, 10, 2, 8, 7, 6, 5, 4, 3, 11):
        write(tmp_path / f'set-train-{number}.tar', plain(number))
    found = layout(config(tmp_path))['train'].paths
    assert [path.stem for path in found] == [f'set-train-{number}' for number in range(12)]
    (tmp_path / 'set-train-9.tar').unlink()
    with pytest.raises(DataError, match=r"shards between '.*set-train-8\.tar' and 'set-train-10\.tar' are missing"):
        layout(config(tmp_path))


def test_extensions_have_to_be_passed_and_a_sample_without_an_image_is_named(root):
    write(root / 'set-train-0001.tar', [[('left.png', png(3)), ('right.png', png(4)), ('cls', b'1')]])
    with pytest.raises(
        DataError,
        match=r"sample './a\.b/sample000' of shard .*0001\.tar' has no image, only cls, left\.png, right\.png",
    ):
        ShardSource(config(root), 'train')
    with pytest.warns(AlfaWarning, match="1 samples of split 'train' have no image"):
        assert len(ShardSource(config(root, skip_corrupt=True), 'train')) == 3
    source = ShardSource(config(root, input_key='png;right.png'), 'train')
    assert source.image(3, 'RGB').tobytes() == picture(4).tobytes()


@pytest.mark.parametrize('kind', ['BMP', 'TIFF', 'GIF', 'JPEG2000'])
def test_images_of_any_format_are_found(root, kind):
    extension = {'JPEG2000': 'jp2', 'TIFF': 'tif'}.get(kind, kind.lower())
    write(root / 'set-train-0001.tar', [[(extension, encoded(picture(3), kind)), ('cls', b'1')]])
    assert ShardSource(config(root), 'train').image(3, 'RGB').size == (8, 8)


def test_a_label_may_begin_with_a_mark_of_its_bytes(root):
    write(root / 'set-train-0001.tar', [[('png', png(3)), ('cls', b'\xef\xbb\xbf2\r\n')]])
    assert ShardSource(config(root), 'train').targets.tolist() == [0, 1, 2, 2]


def test_splits_are_found_however_they_are_written(tmp_path):
    for name in ('set-Train-0000.tar', 'set-TRAIN-0001.tar', 'set_Testing.tar'):
        write(tmp_path / name, plain(0))
    assert {name: len(shards.paths) for name, shards in layout(config(tmp_path)).items()} == {'train': 2, 'testing': 1}
    assert inspect_data(config(tmp_path)).val_split == 'testing'


def cut(whole, at):
    return whole[:at]


def flipped(whole, at):
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def zeroed(whole, at):
    end = at + 512 - at % 512
    return whole[:at] + bytes(end - at) + whole[end:]


@pytest.mark.parametrize('damage', [cut, flipped, zeroed])
@pytest.mark.parametrize('within', [0, 200, 600])
def test_no_damage_makes_a_smaller_shard(root, damage, within):
    """At the header of the last but one file, within it, and within its content."""
    path = root / 'set-train-0001.tar'
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        start = archive.getmembers()[2].offset
    path.write_bytes(damage(whole, start + within))
    if within == 600 and damage is not cut:  # tar has no sum of contents: the decoder has
        assert len(ShardSource(config(root), 'train')) == 5
        return
    with pytest.raises(DataError, match=r"shard '.*set-train-0001\.tar' (is damaged or cut off after|cannot be read)"):
        ShardSource(config(root), 'train')


@pytest.mark.parametrize('other', ['compressed', 'text', 'empty'])
def test_what_is_no_shard_is_named(root, other):
    path = root / 'set-train-0001.tar'
    if other == 'compressed':
        write(path, plain(3), 'w:gz')
    else:
        path.write_text('not a tar file' * (other == 'text'))
    with pytest.raises(DataError, match=r"shard '.*set-train-0001\.tar' cannot be read as an uncompressed tar file"):
        inspect_data(config(root))


def test_a_file_that_is_there_twice_is_named(root):
    write(root / 'set-train-0001.tar', [[*plain(3)[0], *plain(4)[0]]])
    with pytest.raises(DataError, match=r'sample000\.png twice'):
        ShardSource(config(root), 'train')


def test_hidden_files_and_folders_are_no_samples(root):
    path = root / 'set-train-0001.tar'
    with tarfile.open(path, 'w') as archive:
        folder = tarfile.TarInfo('d.d')
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in (('d.d/a.png', png(3)), ('d.d/._a.png', b'finder'), ('d.d/A.CLS', b'2')):
            add(archive, name, content)
    with pytest.raises(DataError, match=r"sample 'd\.d/a' of shard .*: there is no \.cls file"):
        ShardSource(config(root), 'train')
    with tarfile.open(path, 'w') as archive:
        for name, content in (
            ('d.d/' + 'a' * 200 + '.PNG', png(3)),
            ('d.d/._a.png', b'finder'),
            ('d.d/' + 'a' * 200 + '.cls', b'2'),
        ):
            add(archive, name, content)
    source = ShardSource(config(root), 'train')
    assert source.targets.tolist() == [0, 1, 2, 2]
    assert source.image(3, 'RGB').tobytes() == picture(3).tobytes()


def test_a_broken_image_is_named_or_left_out(root):
    write(root / 'set-train-0000.tar', [[('png', png(0)[:80]), ('cls', b'0')], *plain(1, 2)])
    with pytest.raises(DataError, match=r"cannot read image 0 of shard '.*set-train-0000\.tar'"):
        inspect_data(config(root))
    assert inspect_data(config(root, skip_corrupt=True)).image_size == (3, 8, 8)


@pytest.mark.parametrize(
    ('options', 'error'),
    [
        (dict(dataset='wds/'), "no folder ''"),
        (dict(dataset='wds/x', data_dir='/nowhere'), "no folder '/nowhere'"),
        (dict(dataset='wds/https://host/set'), "shards on a server, 'https://host/set', are not supported"),
        (dict(dataset='wds', data_dir='{}/set-train-0000.tar'), "'.*0000.tar' is a shard"),
    ],
)
def test_the_shards_must_be_in_a_folder(root, options, error):
    options = {key: value.format(root) for key, value in options.items()}
    with pytest.raises(DataError, match=error + '.*: pass --data-dir the folder that holds the shards'):
        inspect_data(DataConfig(**options))


def test_a_folder_without_shards_is_an_error(tmp_path):
    (tmp_path / 'photos.tar').write_bytes(b'')
    with pytest.raises(DataError, match=r'no shards in .*_info\.json, and no .*; not used: photos\.tar'):
        inspect_data(config(tmp_path))
