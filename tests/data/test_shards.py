import io
import json
import pickle
import tarfile

import pytest
from pictures import picture

from timm_alfa.data import AugConfig, DataConfig, create_data, inspect_data
from timm_alfa.data.shards import ShardSource, layout
from timm_alfa.errors import AlfaError, DataError


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def png(seed):
    file = io.BytesIO()
    picture(seed).save(file, 'PNG')
    return file.getvalue()


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
    for data in (config(tmp_path / 'tars', batch_size=1, loader=loader, workers=1),
                 DataConfig(data_dir=str(folder), batch_size=1, loader=loader, workers=1)):
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
    with pytest.raises(DataError, match=r'holds 2 images, the info file says 5'):
        listed(length=5)
    with pytest.raises(DataError, match=r"lists shards that are not there, .*set-train-0009\.tar' and 0 others"):
        listed('set-train-0009.tar')
    (root / '_info.json').write_text('{"splits": {"train": {}}}')
    with pytest.raises(DataError, match=r"_info\.json' lists no splits with their filenames \(KeyError"):
        layout(config(root))


def test_labels_may_be_a_field_of_the_sidecar_and_names(tmp_path):
    write(tmp_path / 'train.0.tar', [[('png', png(0)), ('json', b'{"kind": "dog", "at": 1}')],
                                     [('json', b'{"kind": "cat", "at": 0}'), ('png', png(1))]])
    assert ShardSource(config(tmp_path, target_key='at'), 'train').targets.tolist() == [1, 0]
    (tmp_path / 'names.txt').write_text('dog\ncat\n')
    source = ShardSource(config(tmp_path, target_key='kind', class_map=str(tmp_path / 'names.txt')), 'train')
    assert (source.targets.tolist(), source.class_names) == ([0, 1], ('dog', 'cat'))
    info(tmp_path, train=dict(filenames=['train.0.tar'], alt_label='at'))
    assert ShardSource(config(tmp_path), 'train').targets.tolist() == [1, 0]
    for key in ('kind', 'nothing'):
        with pytest.raises(DataError, match='no image of split .* has a label'):
            ShardSource(config(tmp_path, target_key=key), 'train')


@pytest.mark.parametrize('label', [b'x', b'1.5', b'', b'7'])
def test_a_wrong_label_is_named(root, label):
    write(root / 'set-train-0001.tar', [plain(3)[0], [('png', png(4)), ('cls', label)]])
    with pytest.raises(DataError, match=r"image 1 of shard '.*set-train-0001\.tar' has label (-1|7), valid are 0\.\.2"):
        inspect_data(config(root, num_classes=3))


def test_extensions_are_asked_for_and_a_sample_without_an_image_is_named(root):
    write(root / 'set-train-0001.tar', [[('left.png', png(3)), ('right.png', png(4)), ('cls', b'1')]])
    with pytest.raises(DataError, match=r"sample './a\.b/sample000' of shard .*0001\.tar' has no image: .*right\.png"):
        ShardSource(config(root), 'train')
    source = ShardSource(config(root, input_key='png;right.png'), 'train')
    assert source.image(3, 'RGB').tobytes() == picture(4).tobytes()


@pytest.mark.parametrize('damage', ['cut', 'compressed', 'text', 'gone'])
def test_a_damaged_shard_is_named_before_any_work(root, damage):
    path = root / 'set-train-0001.tar'
    if damage == 'cut':
        whole = path.read_bytes()
        path.write_bytes(whole[:whole.index(png(4)[:40]) + 60])
    elif damage == 'compressed':
        write(path, plain(3), 'w:gz')
    else:
        path.write_text('not a tar file') if damage == 'text' else path.unlink()
    if damage == 'gone':  # names are all there is to go by
        assert inspect_data(config(root)).train_images == 3
        return
    with pytest.raises(DataError, match=r"shard '.*set-train-0001\.tar' (is cut off in|cannot be read as)"):
        inspect_data(config(root))


def test_a_broken_image_is_named_or_left_out(root):
    write(root / 'set-train-0000.tar', [[('png', png(0)[:80]), ('cls', b'0')], *plain(1, 2)])
    with pytest.raises(DataError, match=r"cannot read image 0 of shard '.*set-train-0000\.tar'"):
        inspect_data(config(root))
    assert inspect_data(config(root, skip_corrupt=True)).image_size == (3, 8, 8)


@pytest.mark.parametrize('options', [
    dict(dataset='wds/'), dict(dataset='wds/x', data_dir='/nowhere'), dict(dataset='wds/https://host/set')])
def test_what_is_no_folder_is_told(options):
    with pytest.raises(AlfaError, match='no folder .* give --data-dir a folder with tar shards'):
        inspect_data(DataConfig(**options))


def test_a_folder_without_shards_is_told(tmp_path):
    (tmp_path / 'photos.tar').write_bytes(b'')
    with pytest.raises(DataError, match=r'no shards in .*_info\.json'):
        inspect_data(config(tmp_path))
