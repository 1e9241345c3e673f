import pytest
import torch

from timm_alfa.data import AugConfig, DataConfig, create_data, create_eval_loader, inspect_data
from timm_alfa.data.loaders.in_memory import MemoryLoader
from timm_alfa.data.loaders.workers import WorkerLoader
from timm_alfa.errors import AlfaWarning, ConfigError, DataError


def config(root, **kwargs):
    return DataConfig(**dict(data_dir=str(root), batch_size=4, workers=0) | kwargs)


@pytest.fixture
def root(make_folder):
    return make_folder(train=dict(a=7, b=5, c=4), val=dict(b=2, c=3), test=dict(a=1))


def test_digits_train_at_once(model_config):
    data = create_data(DataConfig(), model_config=model_config | dict(input_size=(1, 32, 32), mean=(0.5,), std=(0.5,)))
    input, target = next(iter(data.train))
    assert input.shape == (128, 1, 32, 32) and input.min() >= -1 and input.max() <= 1
    assert (len(data.train), data.num_classes, target.dtype) == (11, 10, torch.int64)
    assert data.test is None and data.train_images == 1437


@pytest.mark.parametrize(('loader', 'kind'), [('memory', MemoryLoader), ('timm', WorkerLoader)])
def test_three_loaders(root, model_config, loader, kind):
    options = config(root, loader=loader, val_fraction=0.25, validation_batch_size=3)
    data = create_data(options, model_config=model_config)
    assert all(isinstance(one, kind) for one in (data.train, data.val, data.test))
    assert (data.train_images, data.val_images, data.test_images) == (12, 4, 5)
    assert [len(one) for one in (data.train, data.val, data.test)] == [3, 2, 2]
    assert torch.cat([target for _, target in data.test]).tolist() == [1, 1, 2, 2, 2]
    train = torch.cat([data.train.last_indices for _ in data.train])
    val = torch.cat([data.val.last_indices for _ in data.val])
    assert sorted(train.tolist() + val.tolist()) == list(range(16))
    assert (data.class_names, data.description) == (('a', 'b', 'c'), data.info.description)
    data.close()


def test_both_loaders_give_the_same_images_where_nothing_is_augmented(root, model_config):
    made = [
        create_data(config(root, loader=loader), AugConfig(no_aug=True), model_config=model_config)
        for loader in ('memory', 'timm')
    ]
    for left, right in zip(*(data.train for data in made), strict=True):
        assert left[0].equal(right[0]) and left[1].equal(right[1])


@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear', 'bicubic'])
@pytest.mark.parametrize('side', [4, 16])
def test_both_loaders_resize_alike(root, model_config, interpolation, side):
    """Shrunk by the same code; enlarged by torch and by PIL, which round and clamp in other places."""
    inputs = model_config | dict(input_size=(3, side, side), interpolation=interpolation, mean=(0,) * 3, std=(1,) * 3)
    left, right = (
        next(iter(create_eval_loader(config(root, loader=loader), model_config=inputs, split='val')))[0]
        for loader in ('memory', 'timm')
    )
    assert (left - right).abs().mean() <= (1 / 255 if side == 16 and interpolation != 'nearest' else 0)


def test_an_interpolation_that_memory_lacks_is_refused_where_it_matters(root, model_config):
    lanczos = model_config | dict(interpolation='lanczos')
    create_eval_loader(config(root, loader='memory'), model_config=lanczos, split='val')
    with pytest.raises(ConfigError, match="--interpolation of the memory loader 'lanczos'.*nearest"):
        create_eval_loader(
            config(root, loader='memory'), model_config=lanczos | dict(input_size=(3, 16, 16)), split='val'
        )


def test_information_once_gathered_is_used(root, model_config):
    options = config(root, val_fraction=0.25)
    info = inspect_data(options, seed=5)
    data = create_data(options, model_config=model_config, seed=5, info=info)
    assert data.info is info and data.train.subset.source is info.train.source


def test_mixup_gives_soft_targets_of_all_classes(root, model_config):
    data = create_data(config(root, num_classes=6), AugConfig(mixup=0.5, smoothing=0.1), model_config=model_config)
    assert next(iter(data.train))[1].shape == (4, 6)
    assert next(iter(data.val))[1].dtype == torch.int64


def test_corrupt_images_are_counted(root, model_config):
    for name in ('train/a/3.png', 'val/c/1.png'):
        (root / name).write_bytes(b'')
    with pytest.raises(DataError, match=r'3\.png'):
        create_data(config(root), model_config=model_config)
    data = create_data(config(root, skip_corrupt=True), model_config=model_config)
    assert (data.train_images, data.val_images) == (15, 4)
    assert [len(loader.skipped_indices) for loader in (data.train, data.val)] == [1, 1]


def test_a_gray_model_takes_timms_three_means(root, model_config):
    gray = model_config | dict(input_size=(1, 8, 8))
    for loader in ('memory', 'timm'):
        data = create_data(config(root, loader=loader), model_config=gray)
        one = create_data(config(root, loader=loader), model_config=gray | dict(mean=(0.4,), std=(0.25,)))
        assert next(iter(data.val))[0].shape == (2 + 2, 1, 8, 8)
        assert torch.allclose(next(iter(data.val))[0], next(iter(one.val))[0], atol=1e-6)


def test_a_cutmix_box_has_a_choice_of_sides(root, model_config):
    with pytest.raises(ConfigError, match=r'--cutmix-minmax 0\.5 0\.55 leaves no choice at 8 pixels'):
        create_data(config(root), AugConfig(cutmix_minmax=(0.5, 0.55)), model_config=model_config)


def test_channels_and_processes_must_fit(root, model_config):
    with pytest.raises(DataError, match='2 channels'):
        create_data(config(root), model_config=model_config | dict(input_size=(2, 8, 8)))
    with pytest.raises(DataError, match='too few for 17 processes'):
        create_data(config(root), model_config=model_config, world_size=17)


@pytest.mark.parametrize('world', [1, 2, 3])
def test_an_eval_loader_covers_its_split_once(root, model_config, world):
    loaders = [
        create_eval_loader(config(root), model_config=model_config, rank=rank, world_size=world)
        for rank in range(world)
    ]
    targets = torch.cat([target for loader in loaders for _, target in loader])
    assert targets.tolist() == [0, 0, 1, 1, 1] and loaders[0].images == 5


def test_an_eval_loader_numbers_classes_as_the_model_does(root, model_config):
    loader = create_eval_loader(config(root), model_config=model_config, num_classes=3)
    assert torch.cat([target for _, target in loader]).tolist() == [1, 1, 2, 2, 2]
    assert loader.subset.source.class_names == ('a', 'b', 'c')
    only = create_eval_loader(config(root), model_config=model_config, split='test', num_classes=1)
    assert [target.tolist() for _, target in only] == [[0]]
    (root / 'train').rename(root / 'small')
    with pytest.raises(DataError, match=r"split 'val' has 2 classes, the model 3, .*'train' .*--train-split or"):
        create_eval_loader(config(root), model_config=model_config, num_classes=3)
    loader = create_eval_loader(config(root, train_split='small'), model_config=model_config, num_classes=3)
    assert torch.cat([target for _, target in loader]).tolist() == [1, 1, 2, 2, 2]
    (root / 'small').rename(root / 'train')
    with pytest.raises(DataError, match=r'has label 2, valid are 0\.\.1'):
        create_eval_loader(config(root), model_config=model_config, split='train', num_classes=2)
    with pytest.raises(DataError, match=r"unknown split --split 'none'. Known: test, train, val"):
        create_eval_loader(config(root), model_config=model_config, split='none')


def test_an_eval_loader_numbers_classes_by_the_models_names(root, model_config):
    """No training split is needed, and equal numbers of classes do not make them the same classes."""

    def targets(split='val', **options):
        loader = create_eval_loader(config(root), model_config=model_config, split=split, **options)
        return torch.cat([target for _, target in loader])

    (root / 'train').rename(root / 'small')
    names = ('a', 'b', 'c')
    assert targets(num_classes=3, class_names=names).tolist() == [1, 1, 2, 2, 2]
    assert targets(num_classes=2, class_names=('c', 'b')).tolist() == [1, 1, 0, 0, 0]
    with pytest.warns(AlfaWarning, match=r"classes of split 'val' are called b, c; the model's are b, d: the order is"):
        assert targets(num_classes=2, class_names=('b', 'd')).tolist() == [0, 0, 1, 1, 1]


def test_data_with_the_models_classes_in_another_order_is_refused(model_config):
    names = [str(digit) for digit in range(10)]
    options = dict(model_config=model_config | dict(input_size=(3, 32, 32)), split='test', num_classes=10)
    create_eval_loader(DataConfig(workers=0), class_names=names, **options)
    with pytest.raises(DataError, match=r"split 'test' has the model's classes in another order \(0, 1, .*--class-map"):
        create_eval_loader(DataConfig(workers=0), class_names=names[::-1], **options)
