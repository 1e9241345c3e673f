import pytest
import torch
from PIL import Image

from timm_alfa.data import AugConfig, DataConfig, inspect_data
from timm_alfa.data.datasets.registry import find_split
from timm_alfa.errors import AlfaError, AlfaWarning, ConfigError, DataError


def config(root, **kwargs):
    return DataConfig(data_dir=str(root), **kwargs)


@pytest.fixture
def root(make_folder):
    return make_folder(train=dict(a=6, b=4), val=dict(a=2, b=1))


def test_nothing_given_means_the_digits():
    info = inspect_data(DataConfig())
    assert (info.kind, info.loader, info.num_classes, info.image_size) == ('digits', 'memory', 10, (1, 32, 32))
    assert (info.train_images, info.val_images, info.test_images) == (1437, 360, None)
    assert (info.train_split, info.val_split, info.test_split) == ('train', 'test', None)
    assert 'digits' in info.description and '--val-fraction' in info.notes[0]
    assert '360 to choose the best checkpoint on (test), none to test it on at the end' in info.description


def test_a_validation_fraction_keeps_the_other_split_for_the_end():
    info = inspect_data(DataConfig(val_fraction=0.1, train_subset=100), seed=3)
    assert (info.train_images, info.val_images, info.test_images) == (100, 144, 360)
    assert (info.val_split, info.test_split) == ('0.1 of train', 'test')
    assert info.val.source is info.train.source and not info.val.train
    whole = inspect_data(DataConfig(val_fraction=0.1), seed=3)
    held, kept = set(whole.val.indices.tolist()), set(whole.train.indices.tolist())
    assert not held & kept and len(held | kept) == 1437
    assert info.val.indices.equal(whole.val.indices) and set(info.train.indices.tolist()) < kept
    assert not whole.val.indices.equal(inspect_data(DataConfig(val_fraction=0.1), seed=4).val.indices)


@pytest.mark.parametrize('options', [dict(val_fraction=0.1, train_subset=100), dict(train_subset=100)])
def test_unused_images_are_all_that_are_neither_trained_nor_validated_on(options):
    info = inspect_data(DataConfig(**options, score_unused=True), seed=3)
    plain = inspect_data(DataConfig(**options), seed=3)
    assert plain.unused is None and info.train.indices.equal(plain.train.indices)
    seen = {*info.train.indices.tolist()} | ({*info.val.indices.tolist()} if 'val_fraction' in options else set())
    assert info.unused.indices.tolist() == sorted(set(range(1437)) - seen)
    assert not info.unused.train and f'{len(info.unused)} unused ones (train)' in info.description


def test_unused_images_do_not_decide_on_the_loader(monkeypatch):
    monkeypatch.setattr('timm_alfa.data.inspect.MEMORY_LIMIT', 700 * 3 * 32 * 32)
    options = dict(val_fraction=0.1, train_subset=100)
    assert inspect_data(DataConfig(**options)).loader == 'memory'
    assert inspect_data(DataConfig(**options, score_unused=True)).loader == 'memory'
    assert inspect_data(DataConfig(val_fraction=0.1)).loader == 'timm'


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(val_fraction=0.1), ConfigError, '--score-unused without --train-subset: every training image is used'),
        (dict(val_fraction=0.1, train_subset=1293), DataError, "--score-unused: no image of split 'train' is left"),
        (dict(val_split='train', train_subset=9), DataError, "--score-unused: no image of split 'train' is left"),
    ],
)
def test_unused_images_have_to_exist(options, error, message):
    with pytest.raises(error, match=message):
        inspect_data(DataConfig(**options, score_unused=True))


def test_labels_identify_the_order_of_the_images(root, make_folder):
    """Of all splits, each once; other options of the same data do not matter."""
    first = inspect_data(config(root)).labels_sha256
    assert first == inspect_data(config(root, val_fraction=0.25, train_subset=2), seed=7).labels_sha256
    assert inspect_data(DataConfig()).labels_sha256 == inspect_data(DataConfig(), seed=1).labels_sha256 != first
    other = make_folder('other', train=dict(a=9, b=7), val=dict(a=1, b=2))
    assert inspect_data(config(other)).labels_sha256 != first


def test_folders(root):
    info = inspect_data(config(root))
    assert (info.kind, info.class_names, info.image_size, info.loader) == ('folder', ('a', 'b'), (3, 8, 8), 'memory')
    assert (info.val_split, info.val_images, info.notes) == ('val', 3, ())


def test_auto_takes_memory_only_for_small_images_of_one_size_and_plain_augmentation(root, make_folder):
    assert inspect_data(config(root), AugConfig(aa='original')).loader == 'timm'
    assert inspect_data(config(root), AugConfig(color_jitter=0.0)).loader == 'timm'
    assert inspect_data(config(root, loader='timm')).loader == 'timm'
    large = make_folder('large', size=(65, 20), train=dict(a=2), val=dict(a=1))
    assert inspect_data(config(large)).loader == 'timm'
    Image.new('RGB', (9, 8)).save(root / 'train' / 'b' / '2.png')
    assert inspect_data(config(root)).loader == 'timm'
    assert inspect_data(config(root, loader='memory')).loader == 'memory'


def test_without_a_validation_split_a_fraction_is_needed(make_folder):
    root = make_folder('flat', all=dict(a=8, b=8)) / 'all'
    with pytest.raises(DataError, match=r"unknown split --val-split 'validation'.*Known: train\..*--val-fraction 0\.1"):
        inspect_data(config(root))
    info = inspect_data(config(root, val_fraction=0.25))
    assert (info.train_images, info.val_images, info.test_images) == (12, 4, None)
    assert 'no test score' in info.notes[0]
    with pytest.raises(DataError, match="unknown split --val-split 'val2'"):
        inspect_data(config(root, val_fraction=0.25, val_split='val2'))


def test_one_split_for_both_is_a_note(root):
    info = inspect_data(config(root, train_split='val', val_split='val'))
    assert (info.train_images, info.val_images) == (3, 3) and 'same split' in info.notes[0]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(dataset='cifar10'), "unknown dataset 'cifar10'.*torch/cifar10"),
        (dict(dataset='digit'), "Did you mean 'digits'"),
        (dict(dataset='tfds/x'), 'is a stream'),
        (dict(dataset='wds/x'), "no folder 'x'"),
        (dict(dataset='HFIDS/x'), 'is a stream'),
        (dict(dataset='digits', train_split='training[:10%]'), 'unknown split --train-split .* Known: train, test'),
        (dict(train_subset=5000), '1437 images to train on: fewer than --train-subset 5000'),
        (dict(num_classes=5), r"digit \d+ of split 'train' has label \d, valid are 0\.\.4"),
        (dict(data_dir='/nowhere/at/all'), "no folder '/nowhere/at/all'"),
        (dict(train_split='tra'), "unknown split --train-split 'tra'. Did you mean 'train'"),
    ],
)
def test_errors_are_one_line_that_says_what_is_valid(options, message):
    with pytest.raises(DataError, match=message) as caught:
        inspect_data(DataConfig(**options))
    assert '\n' not in str(caught.value)


def test_all_options_that_exclude_each_other_are_reported():
    with pytest.raises(ConfigError) as caught:
        inspect_data(DataConfig(loader='memory'), AugConfig(aa='original', scale=(0.5, 1.0)))
    assert len(caught.value.errors) == 2 and isinstance(caught.value, AlfaError)


def test_an_option_without_effect_warns(root):
    with pytest.warns(AlfaWarning, match='--target-key has no effect'):
        inspect_data(config(root, target_key='label'))


def test_a_corrupt_first_image_stops_before_any_work(root):
    broken = root / 'train' / 'a' / '0.png'
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(DataError, match=f"cannot read image '{broken}'"):
        inspect_data(config(root))
    assert inspect_data(config(root, skip_corrupt=True)).image_size == (3, 8, 8)


@pytest.mark.parametrize(
    ('wanted', 'known', 'found'),
    [
        ('validation', ('train', 'test'), 'test'),
        ('validation', ('test', 'val'), 'val'),
        ('val', ('validation',), 'validation'),
        ('test', ('train', 'val'), None),
        ('train', ('training', 'test'), 'training'),
        ('odd', ('even', 'odd'), 'odd'),
        ('odd', ('train', 'test'), None),
    ],
)
def test_usual_names_of_splits_stand_for_each_other(wanted, known, found):
    assert find_split('folder', wanted, known) == found


def test_only_tables_can_be_sliced():
    assert find_split('hfds', 'train[:5%]+test', ('train', 'test')) == 'train[:5%]+test'
    assert find_split('folder', 'train[:5%]', ('train',)) is None


def test_labels_are_checked_in_every_part(root):
    info = inspect_data(config(root, num_classes=7))
    assert info.num_classes == 7 and torch.equal(info.val.source.targets, torch.tensor([0, 0, 1]))
