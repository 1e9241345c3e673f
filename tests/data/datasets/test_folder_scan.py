"""Everything in an image folder is read, left out and counted, or an error that names it."""

import os
import shutil

import pytest
from helpers.pictures import picture
from timm.utils.misc import natural_key as timms_key

from timm_alfa.data import DataConfig, inspect_data
from timm_alfa.data.datasets.folder_scan import natural_key, scan_classes
from timm_alfa.data.datasets.image_folder import FolderSource, layout
from timm_alfa.errors import AlfaWarning, DataError


def config(root, **kwargs):
    return DataConfig(data_dir=str(root), **kwargs)


def add(path, content=b''):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# splits


@pytest.mark.parametrize(
    ('train', 'val'),
    [
        ('Train', 'Test'),
        ('TRAINING', 'Testing'),
        ('train', 'valid'),
        ('training_set', 'test_set'),
        ('Train-Set', 'Validation'),
    ],
)
def test_splits_are_found_however_they_are_written(train, val, make_folder):
    root = make_folder(**{train: dict(cat=3, dog=3), val: dict(cat=1, dog=2)})
    info = inspect_data(config(root))
    assert (info.train_split, info.val_split, info.train_images, info.val_images) == (train, val, 6, 3)
    info = inspect_data(config(root, val_fraction=0.5))
    assert (info.train_images, info.val_images, info.test_images) == (3, 3, 3)


def test_two_folders_for_one_split_are_refused(make_folder):
    root = make_folder(train=dict(a=1), Train=dict(a=1), val=dict(a=1))
    with pytest.raises(DataError, match="'Train' and 'train' in .* are names of the same split"):
        layout(config(root))


def test_a_validation_and_a_test_split_are_two(make_folder):
    root = make_folder(Train=dict(a=3), Val=dict(a=2), Test=dict(a=1))
    assert inspect_data(config(root)).val_images == 2
    assert inspect_data(config(root, val_split='test')).val_images == 1


def test_folders_of_the_same_name_are_never_one_class(make_folder):
    root = make_folder(fold1=dict(cat=2, dog=2), fold2=dict(cat=1, dog=1))
    with pytest.raises(
        DataError, match=rf'have the same name.*--data-dir {root} --train-split fold1 --val-split fold2'
    ):
        inspect_data(config(root, val_fraction=0.1))
    info = inspect_data(config(root, train_split='fold1', val_split='fold2'))
    assert (info.train_images, info.val_images) == (4, 2)
    with pytest.raises(DataError, match=rf'--data-dir {root} --train-split fold1 --val-split fold2'):
        inspect_data(config(root.parent, val_fraction=0.1))  # one folder too high


def test_classes_may_lie_in_groups(make_folder):
    root = make_folder(train=dict(x=1), val=dict(x=1))
    shutil.rmtree(root / 'train' / 'x')
    for path in ('pets/cat', 'pets/dog', 'plants/rose'):
        (root / 'train' / path).mkdir(parents=True)
        picture(0).save(root / 'train' / path / '0.png')
    assert FolderSource(config(root), 'train').class_names == ('cat', 'dog', 'rose')


def test_a_folder_in_a_class_folder_is_named(make_folder):
    root = make_folder(train=dict(cat=3), val=dict(cat=1))
    (root / 'train' / 'cat' / 'more').mkdir()
    picture(0).save(root / 'train' / 'cat' / 'more' / '0.png')
    with pytest.raises(DataError, match=r"class folder '.*cat' holds 3 images and the folder 'more': move the images"):
        FolderSource(config(root), 'train')


# files


def test_every_format_is_read_whatever_its_case(make_folder):
    root = make_folder(train=dict(cat=1), val=dict(cat=1))
    for name in ('1.webp', '2.WEBP', '3.Bmp', '4.tif', '5.jp2', '6.gif', '7.JPG'):
        picture(0).save(root / 'train' / 'cat' / name)
    source = FolderSource(config(root), 'train')
    assert len(source) == 8
    assert {source.image(at, 'RGB').size for at in range(8)} == {(8, 8)}


def test_what_is_left_out_is_counted(make_folder):
    root = make_folder(train=dict(cat=1, dog=1), val=dict(cat=1, dog=1))
    for name in ('1.heic', '2.HEIC', 'notes.txt', 'unnamed', '._0.png', '.DS_Store', 'Thumbs.db', 'desktop.ini'):
        add(root / 'train' / 'cat' / name)
    add(root / 'train' / 'dog' / '1.heic')
    message = "split 'train' leaves out files that are not images: 3 .heic, 1 .txt, 1 without extension, 1 ._*.png."
    with pytest.warns(AlfaWarning) as caught:
        source = FolderSource(config(root), 'train')
    (text,) = {str(warning.message) for warning in caught}
    assert sorted(text.partition(': ')[2][:-1].split(', ')) == sorted(message.partition(': ')[2][:-1].split(', '))
    assert text.startswith("split 'train' leaves out files that are not images: 3 .heic, ")
    assert len(source) == 2


def test_a_class_without_images_says_what_it_holds(make_folder):
    root = make_folder(train=dict(cat=1), val=dict(cat=1))
    for at in range(3):
        add(root / 'train' / 'dog' / f'{at}.heic')
    with pytest.raises(DataError, match=r"class folder '.*dog' has no images but 3 \.heic: fill.* \.avif, .*\.webp"):
        FolderSource(config(root), 'train')


def test_files_of_macos_are_no_images(make_folder):
    root = make_folder(train=dict(cat=2), val=dict(cat=1))
    add(root / 'train' / 'cat' / '._0.png', b'\0\5\x16\7')
    with pytest.warns(AlfaWarning, match=r'1 \._\*\.png'):
        assert [os.path.basename(path) for path in FolderSource(config(root), 'train').paths] == ['0.png', '1.png']


def test_an_empty_file_is_named(make_folder):
    root = make_folder(train=dict(cat=1), val=dict(cat=1))
    add(root / 'train' / 'cat' / '1.png')
    with pytest.raises(DataError, match=r"cannot read image '.*cat/1\.png': it is empty\."):
        FolderSource(config(root), 'train').image(1, 'RGB')


def test_names_need_not_be_unicode(make_folder):
    root = make_folder(train=dict(cat=1), val=dict(cat=1))
    os.rename(root / 'train' / 'cat' / '0.png', os.fsencode(root / 'train' / 'cat') + b'/\xff.png')
    source = FolderSource(config(root), 'train')
    assert source.image(0, 'RGB').size == (8, 8)
    (root / 'train' / 'cat' / os.fsdecode(b'\xff.png')).write_bytes(b'x')
    with pytest.raises(DataError, match=r'\\udcff\.png'):
        source.image(0, 'RGB')


# links


def test_a_link_to_a_class_is_a_class(make_folder, tmp_path):
    root = make_folder(train=dict(cat=2), val=dict(cat=1))
    os.rename(root / 'train' / 'cat', tmp_path / 'elsewhere')
    os.symlink(tmp_path / 'elsewhere', root / 'train' / 'cat')
    assert FolderSource(config(root), 'train').class_names == ('cat',)


@pytest.mark.parametrize('target', ['..', '.', '../../..'])
def test_a_link_that_leads_back_is_named(target, make_folder):
    root = make_folder(train=dict(cat=1), val=dict(cat=1))
    (root / 'train' / 'dog').mkdir()
    os.symlink(target, root / 'train' / 'dog' / 'loop')
    with pytest.raises(DataError, match=r"link '.*dog/loop.*' leads back to|holds 1 images|itself holds images"):
        scan_classes(str(root / 'train'))
    with pytest.raises(DataError, match=r'loop'):
        inspect_data(config(root))


def test_a_broken_link_is_named(make_folder):
    root = make_folder(train=dict(cat=1), val=dict(cat=1))
    os.symlink('nowhere', root / 'train' / 'cat' / '1.png')
    with pytest.raises(DataError, match=r"cannot read image '.*1\.png': .*No such file"):
        FolderSource(config(root), 'train').image(1, 'RGB')


# order


def test_the_order_is_timms():
    names = ['10', '9', 'a10b2', 'a9b30', 'A1', 'b', 'a', 'img_2.png', 'img_10.png', 'x y/1', 'x/1', 'é']
    assert sorted(names, key=natural_key) == sorted(names, key=timms_key)


def test_names_that_timms_order_holds_equal_have_one_order():
    """It follows from the names, not from the file system or the seed of Python's hashes."""
    for names in (['01', '1', '001'], ['Cat', 'cat', 'CAT'], ['2²', '2']):
        turned = names[::-1]
        assert sorted(names, key=natural_key) == sorted(turned, key=natural_key)


def test_images_and_classes_are_numbered_as_timm_does(make_folder):
    from timm.data import create_dataset

    root = make_folder(train={'10': 11, '9': 2, 'b a': 1, 'b': 12}, val={'9': 1})
    reader = create_dataset('', root=str(root / 'train'), search_split=False).reader
    source = FolderSource(config(root), 'train')
    assert list(zip(source.paths, source.targets.tolist(), strict=True)) == reader.samples
    assert source.class_names == tuple(reader.class_to_idx)


@pytest.mark.parametrize('names', [('Cat', 'cat'), ('caf\u00e9', 'cafe\u0301')])
def test_classes_that_look_alike_are_said_to_be_two(names, make_folder):
    root = make_folder(train=dict.fromkeys(names, 1), val=dict.fromkeys(names, 1))
    with pytest.warns(AlfaWarning, match='are different classes: merge them if not'):
        assert FolderSource(config(root), 'train').class_names == tuple(sorted(names, key=natural_key))
