"""A kind of dataset is one row: these tests add one, and walk those there are."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from timm_alfa.data import DataConfig, create_data, inspect_data
from timm_alfa.data.datasets import registry
from timm_alfa.data.datasets.base import Source
from timm_alfa.data.datasets.registry import KINDS, Kind, find_kind
from timm_alfa.errors import AlfaWarning, DataError
from timm_alfa.publishing.card.metadata import dataset_names
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.run_dir.finished import read_run
from timm_alfa.training.run_dir.folder import default_experiment


class Squares(Source):
    """Six gray squares whose label is their shade."""

    def __init__(self, data, split):
        super().__init__(split, [0, 1, 2] * 2, ['dark', 'gray', 'light'])

    def open(self, index):
        return Image.new('L', (8, 8), 100 * (index % 3))


@pytest.fixture
def squares(monkeypatch):
    """Registers a kind, as a row of KINDS would."""
    row = Kind(
        patterns=('squares/NAME',),
        splits=lambda data: ('train', 'test'),
        open=Squares,
        options={'target_key': 'which shade'},
        unused=('class_map',),
        is_local=lambda data: data.data_dir == '/here',
        hub_id=lambda dataset: f'shapes/{dataset.partition("/")[2]}',
    )
    monkeypatch.setitem(KINDS, 'squares', row)
    return row


def test_a_new_kind_trains_through_the_options_of_train_py(squares):
    config = parse_args(['--dataset', 'squares/gray', '--batch-size', '3', '-j', '0'])
    assert not config.is_digits and config.epochs == 200  # none of the digits' defaults
    assert default_experiment(config) == 'resnet20s-alfa-gray'
    info = inspect_data(config.data, config.aug)
    assert (info.kind, info.name, info.num_classes) == ('squares', 'squares/gray', 3)
    model_config = dict(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    data = create_data(config.data, config.aug, model_config=model_config, info=info)
    assert [len(target) for _, target in data.train] == [3, 3]


def test_a_new_kind_is_in_the_messages(squares):
    with pytest.raises(DataError, match=r"unknown dataset 'square'.*Known: .*, squares/NAME\."):
        inspect_data(DataConfig(dataset='square'))
    with pytest.raises(DataError, match=r"unknown split --train-split 'trains'.*Known: train, test"):
        inspect_data(DataConfig(dataset='squares/gray', train_split='trains'))
    with pytest.warns(AlfaWarning) as caught:
        inspect_data(DataConfig(dataset='squares/gray', input_key='img', target_key='x', class_map='y'))
    assert [str(warning.message) for warning in caught] == [
        '--class-map has no effect with squares/ datasets.',
        '--input-key has no effect without --dataset hfds/ or wds/.',
    ]
    with pytest.warns(AlfaWarning, match='--target-key has no effect without --dataset hfds/ or wds/ or squares/'):
        inspect_data(DataConfig(target_key='x'))
    assert 'squares/NAME' in registry.dataset_help()
    assert registry.option_help('target_key').endswith('which shade (squares)')


def test_a_new_kind_is_published_by_its_name(squares, make_run):
    assert dataset_names(read_run(make_run(dataset='squares/gray'))) == ('shapes/gray', 'shapes/gray')
    assert registry.is_local(DataConfig(dataset='squares/gray', data_dir='/here'))
    assert not registry.is_local(DataConfig(dataset='squares/gray'))


@pytest.mark.parametrize(
    ('dataset', 'kind'),
    [
        ('', 'digits'),
        ('digits', 'digits'),
        ('digits/x', None),
        ('hfds', None),
        ('hfds/a/b', 'hfds'),
        ('HFDS/x', 'hfds'),
        ('torch/mnist', 'torch'),
        ('torch/no-such', 'torch'),  # whose own error lists the names
        ('wds', 'wds'),
        ('wds/x', 'wds'),
        ('folder', None),
        ('folder/x', None),
        ('tfds/x', None),
    ],
)
def test_what_dataset_means(dataset, kind):
    assert find_kind(dataset) == kind
    assert find_kind(dataset, '/data') == (kind if dataset else 'folder')


def test_rows_name_options_that_exist():
    names = {field.name for field in dataclasses.fields(DataConfig)}
    for kind in KINDS.values():
        assert {*kind.options, *kind.unused} <= names


@pytest.mark.parametrize(
    ('dataset', 'found'),
    [
        ('hfds/me/pets', 'me/pets'),
        ('hfds/pets', None),
        ('hfds//data/pets', None),
        ('hfds/./pets', None),
        ('hfds/a/b/c', None),
        ('torch/cifar10', None),
        ('digits', None),
        ('/data/pets', None),
    ],
)
def test_hub_ids(dataset, found):
    assert registry.hub_id(dataset) == found


def test_only_what_is_cached_or_a_folder_is_local(tmp_path):
    assert registry.is_local(DataConfig()) and registry.is_local(DataConfig(data_dir='/x'))
    assert registry.is_local(DataConfig(dataset=f'hfds/{tmp_path}'))
    missing = DataConfig(dataset='hfds/me/pets', data_dir=str(tmp_path))
    assert not registry.is_local(missing)
    (tmp_path / 'me___pets' / 'default').mkdir(parents=True)
    (tmp_path / 'me___pets' / 'default' / 'pets-train.arrow').touch()
    assert registry.is_local(missing)
    assert not registry.is_local(DataConfig(dataset='tfds/x'))


def test_the_manual_lists_every_kind():
    page = (Path(__file__).parents[3] / 'docs' / 'training.md').read_text(encoding='utf-8')
    for kind in KINDS.values():
        assert all(f'`{pattern}' in page for pattern in kind.patterns)
