import os

import pytest

from timm_alfa.data import DataConfig
from timm_alfa.data.datasets.image_folder import FolderSource, layout
from timm_alfa.errors import DataError


def config(root, **kwargs):
    return DataConfig(data_dir=str(root), **kwargs)


def test_labels_follow_the_class_folders(make_folder):
    root = make_folder(train=dict(cat=2, ant=1), val=dict(ant=1, cat=1))
    source = FolderSource(config(root), 'train')
    assert (source.class_names, source.targets.tolist()) == (('ant', 'cat'), [0, 1, 1])
    assert source.image(1, 'RGB').getpixel((0, 0)) == (0, 0, 0)
    assert str(root) in source.label(0)


def test_a_split_without_a_class_keeps_the_training_numbers(make_folder):
    root = make_folder(train=dict(a=1, b=1, c=1), val=dict(c=2, b=1))
    train = FolderSource(config(root), 'train')
    val = FolderSource(config(root), 'val', train.class_names)
    assert val.targets.tolist() == [1, 2, 2]
    assert val.class_names == ('a', 'b', 'c')


def test_a_class_that_training_lacks_is_named(make_folder):
    root = make_folder(train=dict(a=1), val=dict(a=1, z=1))
    with pytest.raises(DataError, match=r"'val' has classes the training split lacks: z\."):
        FolderSource(config(root), 'val', ('a',))


def test_without_split_folders_the_root_is_the_training_split(make_folder):
    root = make_folder(cat=dict(x=0), dog=dict(x=0))
    for label in ('cat', 'dog'):
        (root / label / 'x').rmdir()
    assert layout(config(root)) == {'train': str(root)}


def test_a_class_called_train_is_no_split(make_folder):
    root = make_folder('vehicles', all=dict(train=1, bus=1)) / 'all'
    assert layout(config(root)) == {'train': str(root)}
    assert FolderSource(config(root), 'train').class_names == ('bus', 'train')


def test_splits_may_have_other_names(make_folder):
    root = make_folder(part1=dict(a=1), part2=dict(a=1))
    assert set(layout(config(root, train_split='part1', val_split='part2'))) == {'part1', 'part2'}


def test_a_class_map_gives_the_order(make_folder):
    root = make_folder(train=dict(a=1, b=1))
    (root / 'classes.txt').write_text('b\na\n')
    source = FolderSource(config(root, class_map=str(root / 'classes.txt')), 'train')
    assert (source.class_names, source.targets.tolist()) == (('b', 'a'), [1, 0])
    with pytest.raises(DataError, match='class map'):
        FolderSource(config(root, class_map='nowhere.txt'), 'train')


def _empty_class(root):
    (root / 'train' / 'empty').mkdir()
    return "class folder '.*train/empty' has no images"


def _loose_image(root):
    os.replace(root / 'train' / 'a' / '0.png', root / 'train' / '0.png')
    return 'itself holds images'


def _no_classes(root):
    for file in (root / 'train' / 'a').iterdir():
        file.unlink()
    (root / 'train' / 'a').rmdir()
    return 'no class folders'


def _hidden(root):
    os.rename(root / 'train' / 'a', root / 'train' / '.a')
    (root / 'train' / 'b').mkdir()
    os.link(root / 'train' / '.a' / '0.png', root / 'train' / 'b' / '0.png')
    return r"hidden folder '\.a'"


@pytest.mark.parametrize('spoil', [_empty_class, _loose_image, _no_classes, _hidden])
def test_errors_in_a_folder_are_named(make_folder, spoil):
    root = make_folder(train=dict(a=2), val=dict(a=1))
    message = spoil(root)
    with pytest.raises(DataError, match=message):
        FolderSource(config(root), 'train')


def test_missing_folder_file_and_permission(make_folder, monkeypatch):
    root = make_folder(train=dict(a=1), val=dict(a=1))
    with pytest.raises(DataError, match=r"no folder '.*nowhere'"):
        layout(config(root / 'nowhere'))
    with pytest.raises(DataError, match='is not a folder'):
        layout(config(root / 'train' / 'a' / '0.png'))
    refused = str(root / 'train' / 'a')
    monkeypatch.setattr(os, 'access', lambda path, mode: str(path) != refused)
    with pytest.raises(DataError, match=f"no permission to read folder '{refused}'"):
        FolderSource(config(root), 'train')


def test_a_truncated_image_is_named(make_folder):
    root = make_folder(train=dict(a=3), val=dict(a=1))
    broken = root / 'train' / 'a' / '1.png'
    broken.write_bytes(broken.read_bytes()[:60])
    source = FolderSource(config(root), 'train')
    with pytest.raises(DataError, match=f"cannot read image '{broken}'"):
        source.image(1, 'RGB')
