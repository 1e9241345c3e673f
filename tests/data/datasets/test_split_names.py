import pytest

from timm_alfa.data.datasets.split_names import is_split_name, matching_name


@pytest.mark.parametrize('name', ['train', 'Train', 'TRAINING', 'train_set', 'Val', 'valid', 'test-set', 'Testing'])
def test_usual_names_are_known(name):
    assert is_split_name(name)


@pytest.mark.parametrize('name', ['trains', 'cat', 'testament', '', 'part1'])
def test_other_names_are_not(name):
    assert not is_split_name(name)


@pytest.mark.parametrize(
    ('wanted', 'known', 'found'),
    [
        ('train', ('Test', 'Train'), 'Train'),
        ('Train', ('train', 'test'), 'train'),
        ('training', ('TRAIN',), 'TRAIN'),
        ('validation', ('Testing', 'Training'), 'Testing'),
        ('validation', ('Test', 'Valid'), 'Valid'),
        ('val', ('Val', 'val'), 'val'),
        ('test', ('Testing', 'Val'), 'Testing'),
        ('Test', ('val',), None),
        ('Part1', ('part1',), 'part1'),
        ('part1', ('part2',), None),
    ],
)
def test_a_split_is_found_by_any_of_its_names(wanted, known, found):
    assert matching_name(wanted, known) == found
