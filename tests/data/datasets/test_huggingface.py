from dataclasses import replace

import numpy as np
import pytest
from helpers.dataset_files import encoded
from PIL import Image

from timm_alfa.data import DataConfig, create_data, inspect_data
from timm_alfa.data.datasets.huggingface import HfdsSource, splits
from timm_alfa.errors import DataError

datasets = pytest.importorskip('datasets')


def rows(count, labels=None, **more):
    images = [np.full((4, 4, 3), at, dtype=np.uint8) for at in range(count)]
    return dict(img=images, label=labels or [at % 2 for at in range(count)], **more)


@pytest.fixture
def features():
    return dict(img=datasets.Image(), label=datasets.ClassLabel(names=['zebra', 'ant']))


def config(root, **kwargs):
    return DataConfig(dataset=f'hfds/{root}', **kwargs)


def test_rows_are_read_in_order(make_parquet, features):
    root = make_parquet(features, train=rows(5), test=rows(2))
    assert splits(config(root)) == ('train', 'test')
    source = HfdsSource(config(root), 'train')
    assert (source.targets.tolist(), source.class_names) == ([0, 1, 0, 1, 0], ('zebra', 'ant'))
    assert source.image(3, 'L').getpixel((0, 0)) == 3
    assert [image.getpixel((0, 0)) for image in source.images([4, 0, 2], 'L')] == [4, 0, 2]
    assert len(HfdsSource(config(root), 'train[:3]')) == 3


def test_a_relative_folder_works(make_parquet, features, monkeypatch):
    root = make_parquet(features, train=rows(2))
    (root / 'deep').mkdir()
    monkeypatch.chdir(root / 'deep')
    assert len(HfdsSource(config('../../set'), 'train')) == 2


def test_the_right_column_names_the_classes(make_parquet, features):
    two = dict(
        img=datasets.Image(),
        fine_label=datasets.ClassLabel(names=['x', 'y', 'z']),
        coarse_label=datasets.ClassLabel(names=['p', 'q']),
    )
    data = rows(3)
    data |= dict(fine_label=[2, 1, 0], coarse_label=data.pop('label'))
    root = make_parquet(two, train=data)
    with pytest.raises(DataError, match=r"--target-key is not given .* 'label': use one of img, fine_label, coarse"):
        HfdsSource(config(root), 'train')
    source = HfdsSource(config(root, target_key='fine_label'), 'train')
    assert (source.targets.tolist(), source.class_names) == ([2, 1, 0], ('x', 'y', 'z'))


def test_a_class_map_renumbers(make_parquet, features, tmp_path):
    root = make_parquet(features, train=rows(3))
    (tmp_path / 'map.txt').write_text('ant\nzebra\n')
    source = HfdsSource(config(root, class_map=str(tmp_path / 'map.txt')), 'train')
    assert (source.targets.tolist(), source.class_names) == ([1, 0, 1], ('ant', 'zebra'))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(input_key='image'), "unknown column --input-key 'image'.*Known: img, label, note"),
        (dict(target_key='lable'), "Did you mean 'label'"),
        (dict(input_key='note'), "'note' holds no images: --input-key may be img"),
        (dict(target_key='note'), "'note' does not hold one integer label .* or pass --class-map"),
        (dict(target_key='weight'), "'weight' does not hold one integer label"),
    ],
)
def test_wrong_columns_are_named(make_parquet, features, options, message):
    features |= dict(note=datasets.Value('string'), weight=datasets.Value('float32'))
    root = make_parquet(features, train=rows(2, note=['a', 'b'], weight=[0.5, 1.0]))
    with pytest.raises(DataError, match=message):
        HfdsSource(config(root, **options), 'train')


def test_a_missing_label_is_minus_one(make_parquet, features):
    root = make_parquet(features, train=rows(2, labels=[1, None]))
    assert HfdsSource(config(root), 'train').targets.tolist() == [1, -1]


def test_a_corrupt_row_is_named_and_the_others_are_read(make_parquet, features):
    data = rows(3)
    data['img'] = [
        dict(bytes=b'no image', path='bad.png') if at == 1 else dict(bytes=_png(at), path=None) for at in range(3)
    ]
    source = HfdsSource(config(make_parquet(features, train=data)), 'train')
    first, broken, last = source.images([0, 1, 2], 'L')
    assert (first.getpixel((0, 0)), last.getpixel((0, 0))) == (0, 2)
    assert isinstance(broken, DataError) and "row 1 of split 'train' (bad.png)" in str(broken)


def _png(value):
    return encoded(Image.new('L', (2, 2), value))


@pytest.mark.parametrize(
    ('item', 'reason'),
    [
        (None, 'the row has no image'),
        (dict(bytes=b'', path=None), 'the row has no image'),
        (dict(bytes=b'', path='a.png'), 'it is empty'),
    ],
)
def test_a_row_without_an_image_is_named_or_skipped(make_parquet, features, model_config, item, reason):
    data = rows(3)
    data['img'] = [dict(bytes=_png(at), path=None) if at != 1 else item for at in range(3)]
    options = config(make_parquet(features, train=data), val_split='train', workers=0)
    source = HfdsSource(options, 'train')
    with pytest.raises(DataError, match=rf"cannot read row 1 of split 'train'.*{reason}.*--skip-corrupt"):
        source.image(1, 'RGB')
    with pytest.raises(DataError, match=reason):
        inspect_data(options)
    for loader in ('memory', 'timm'):
        loaded = create_data(replace(options, skip_corrupt=True, loader=loader), model_config=model_config).val
        assert sum(len(input) for input, _ in loaded) == 2
        assert loaded.skipped_indices == {1}


@pytest.mark.parametrize('skip_corrupt', [False, True])
@pytest.mark.parametrize(('label', 'message'), [(None, 'has label -1, which means none'), (5, 'has label 5')])
def test_a_row_without_a_valid_label_is_named(make_parquet, features, skip_corrupt, label, message):
    types = features if label is None else features | dict(label=datasets.Value('int64'))
    options = config(make_parquet(types, train=rows(3, labels=[0, label, 1])), val_split='train', num_classes=2)
    with pytest.raises(DataError, match=rf"row 1 of split 'train' {message}, valid are 0\.\.1"):
        inspect_data(replace(options, skip_corrupt=skip_corrupt))


@pytest.mark.parametrize(
    ('kind', 'labels'), [('float64', [0.0, 1.0, 1.5]), ('float64', [0.0, 1.0, None]), ('string', ['0', '1', '1'])]
)
def test_labels_have_to_be_integers(make_parquet, features, kind, labels):
    root = make_parquet(features | dict(label=datasets.Value(kind)), train=rows(3, labels=labels))
    with pytest.raises(DataError, match="column 'label' does not hold one integer label"):
        HfdsSource(config(root), 'train')


def test_labels_may_be_true_or_false(make_parquet, features):
    types = features | dict(label=datasets.Value('bool'))
    root = make_parquet(types, train=rows(2, labels=[True, False]))
    assert HfdsSource(config(root), 'train').targets.tolist() == [1, 0]


def test_missing_folders_fail_at_once(tmp_path):
    for name in (str(tmp_path / 'nowhere'), '../nowhere', 'a/b/c'):
        with pytest.raises(DataError, match=r"no folder '.*use one that exists"):
            splits(config(name))
    with pytest.raises(DataError, match='has no name'):
        splits(config(''))
    (tmp_path / 'bare').mkdir()
    with pytest.raises(DataError, match='cannot load --dataset hfds/'):
        splits(config(tmp_path / 'bare'))
