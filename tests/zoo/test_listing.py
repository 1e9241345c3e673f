"""What is known of the names that can be created."""

import dataclasses

import timm

import timm_alfa
from timm_alfa.zoo import load_manifest
from timm_alfa.zoo.listing import describe
from timm_alfa.zoo.manifest import Row


def test_names_are_those_that_timm_takes():
    found = timm_alfa.list_pretrained()
    assert set(found) <= set(timm.list_models(pretrained=False, include_tags=True)) | set(timm.list_pretrained())
    assert [name for name, row in found.items() if row.weights] == sorted(load_manifest())
    assert list(timm_alfa.list_pretrained(pretrained=True)) == sorted(load_manifest())


def test_a_filter_is_of_names_with_or_without_their_tag():
    assert set(timm_alfa.list_pretrained('resnet56s')) == set(timm_alfa.list_pretrained('resnet56s.*')) != set()
    assert timm_alfa.list_pretrained('*.l_alfa_in1k').keys() == {'resnet50.l_alfa_in1k'}


def test_a_row_says_where_its_weights_are():
    row = Row('resnet50.alfa_mine', 'a' * 64, 1000, 71.5, 'val', repo_id='me/resnet50.alfa_mine')
    assert describe(row.name, row)[:7] == ('resnet50', 'alfa_mine', None, 'hub', 71.5, 'val', 1000)


def test_a_row_says_how_its_weights_were_trained():
    row = Row('resnet50.alfa_mine', 'a' * 64, 1000, 71.5, 'val', file='files/x', recipe='small/alfa', seed=3, epochs=9)
    found = describe(row.name, dataclasses.replace(row, robust_top1=1.5, commit='abc'))
    assert (found.recipe, found.seed, found.epochs) == ('small/alfa', 3, 9)
    assert (found.robust_top1, found.commit, found.weights) == (1.5, 'abc', 'package')
