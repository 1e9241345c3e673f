"""A class map is read alike by every kind of dataset: no label is dropped, none is numbered by chance."""

import codecs
import pickle

import pytest
from helpers.dataset_files import encoded, open_train, write_dataset
from helpers.pictures import picture

from timm_alfa.data import AugConfig, DataConfig, create_eval_loader
from timm_alfa.data.checks import no_effect
from timm_alfa.data.datasets.class_map import by_text, read_class_map
from timm_alfa.errors import AlfaWarning, DataError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    'content',
    [
        'cat\ndog\n',
        'cat\ndog',
        codecs.BOM_UTF8 + b'cat\ndog\n',
        'cat\r\ndog\r\n',
        'cat\rdog\r',
        '\n\n cat\t\n\n  dog \n\n',
    ],
)
def test_marks_blank_lines_and_white_space_are_skipped(content, tmp_path):
    assert read_class_map(write(tmp_path / 'map.txt', content)) == {'cat': 0, 'dog': 1}


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('map.txt', 'cat\n\ndog\ncat\n', r"'cat' is in lines 1 and 4"),
        ('map.txt', '# animals\ncat\n', r"line 1 is '# animals', a comment"),
        ('map.txt', '\n \n', 'names no class'),
        ('map.txt', 'cat\ndog\n'.encode('utf-16'), 'not UTF-8'),
        ('map.txt', 'café\n'.encode('latin-1'), 'not UTF-8'),
        ('map.csv', 'cat\n', r'use a \.txt file .* or a \.pkl file'),
        ('map.pkl', b'nothing pickled', 'cannot read class map'),
        ('map.pkl', pickle.dumps(['cat']), 'cannot read class map'),
        ('map.pkl', pickle.dumps({}), 'names no class'),
        ('map.pkl', pickle.dumps({'cat': -1}), "number of label 'cat' is -1"),
        ('map.pkl', pickle.dumps({'cat': 0.5}), "number of label 'cat' is 0.5"),
        ('map.pkl', pickle.dumps({'cat': True}), "number of label 'cat' is True"),
        ('map.pkl', pickle.dumps({('cat',): 0}), 'is not text or an integer'),
        ('map.pkl', pickle.dumps({1: 0, '1': 1}), 'label 1 is there as a number and as text'),
    ],
)
def test_what_is_ambiguous_is_refused(name, content, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_class_map(write(tmp_path / name, content))


def test_a_dictionary_may_merge_classes_and_leave_numbers_out(tmp_path):
    numbers = {'cat': 3, 'kitten': 3, 7: 0}
    assert read_class_map(write(tmp_path / 'map.pkl', pickle.dumps(numbers))) == numbers
    assert by_text(numbers) == {'cat': 3, 'kitten': 3, '7': 0}


@pytest.fixture
def make_data(tmp_path, datasets_library):
    """Writes a dataset of one kind with the classes a and b in turns, and a class map; gives the options."""

    def make(kind, content):
        from dataclasses import replace

        data = write_dataset(kind, tmp_path / 'data', [encoded(picture(at)) for at in range(2)])
        return replace(data, class_map=write(tmp_path / 'map.txt', content))

    return make


NAMES = {'folder': 'ab', 'hfds': 'ab', 'wds': '01'}


@pytest.mark.parametrize('kind', NAMES)
def test_every_kind_reads_a_map_alike(kind, make_data):
    first, second = NAMES[kind]
    source = open_train(make_data(kind, codecs.BOM_UTF8 + f'{second}\n\nother\n{first}\n'.encode()))
    assert (source.targets.tolist(), source.class_names) == ([2, 0], (second, 'other', first))


@pytest.mark.parametrize('kind', NAMES)
def test_every_kind_refuses_a_map_that_lacks_a_label(kind, make_data):
    first, second = NAMES[kind]
    with pytest.raises(DataError, match=rf"class map '.*map\.txt' lacks '{second}': add it.*has 2 classes: {first}, c"):
        open_train(make_data(kind, f'{first}\nc\n'))


def test_kinds_without_a_map_say_so(tmp_path):
    data = DataConfig(dataset='torch/mnist', data_dir=str(tmp_path), class_map='map.txt')
    assert '--class-map has no effect with torch/ datasets.' in list(no_effect(data, AugConfig(), 'torch', 'timm'))
    model = dict(input_size=(1, 32, 32), mean=(0.5,), std=(0.5,))
    with pytest.warns(AlfaWarning, match='--class-map has no effect'):
        create_eval_loader(DataConfig(class_map='map.txt', workers=0), model_config=model, split='test')


def test_names_that_look_the_same_are_said_to(make_folder, tmp_path):
    from timm_alfa.data.datasets.image_folder import FolderSource

    root = make_folder(train={'cafe\u0301': 1, 'b': 1})
    path = write(tmp_path / 'map.txt', 'caf\u00e9\nb\n')
    with pytest.raises(DataError, match='other Unicode characters that look the same'):
        FolderSource(DataConfig(data_dir=str(root), class_map=path), 'train')


def test_columns_of_text_and_of_numbers_are_mapped(make_parquet, tmp_path):
    datasets = pytest.importorskip('datasets')
    import numpy as np

    from timm_alfa.data.datasets.huggingface import HfdsSource

    def source(content, kind, labels, name):
        features = dict(image=datasets.Image(), label=kind)
        rows = dict(image=[np.zeros((2, 2, 3), dtype=np.uint8)] * len(labels), label=labels)
        root = make_parquet(features, name=name, train=rows)
        path = write(tmp_path / ('map.pkl' if isinstance(content, dict) else 'map.txt'), _bytes(content))
        return HfdsSource(DataConfig(dataset=f'hfds/{root}', class_map=path), 'train').targets.tolist()

    assert source('dog\ncat\n', datasets.Value('string'), ['cat', 'dog', None], 'text') == [1, 0, -1]
    assert source('9\n7\n', datasets.Value('int64'), [7, 9, 7], 'integers') == [1, 0, 1]
    names = datasets.ClassLabel(names=['1', '0'])  # by name, not by number
    assert source('0\n1\n', names, [0, 1], 'names') == [1, 0]
    assert source({0: 5, 1: 4}, names, [0, 1], 'numbers') == [5, 4]
    with pytest.raises(DataError, match="lacks 'bird', 'fish': add it"):
        source('cat\n', datasets.Value('string'), ['cat', 'bird', 'fish'], 'lacking')


def _bytes(content):
    return pickle.dumps(content) if isinstance(content, dict) else content.encode()
