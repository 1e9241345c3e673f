"""Which features a spec means: the design's table, families, and errors that list what there is."""

from itertools import pairwise

import pytest
import timm
import torch
import torch.nn as nn

from timm_alfa import resolve_blocks
from timm_alfa.blocks.families import FAMILIES, matching
from timm_alfa.blocks.spec import evenly, feature_shape
from timm_alfa.errors import BlockError


def meta(arch, **kwargs):
    with torch.device('meta'):
        return timm.create_model(arch, num_classes=10, **kwargs)


@pytest.fixture(scope='module')
def resnet18():
    return meta('resnet18')


UNITS = ('act1', *(f'layer{i}.{j}' for i in range(1, 5) for j in range(2)))


@pytest.mark.parametrize(
    ('spec', 'names'),
    [
        ('last', ('layer4',)),
        ('3', ('layer3',)),
        ('1,3', ('layer1', 'layer3')),
        ('3, 1', ('layer1', 'layer3')),
        ('all', ('layer1', 'layer2', 'layer3', 'layer4')),
        ('units', UNITS),
        ('units:9', UNITS),
        ('units:1', UNITS[-1:]),
        ('units:2', (UNITS[0], UNITS[-1])),
        ('layer3.1,layer4', ('layer3.1', 'layer4')),
        ('layer4,layer3.1', ('layer3.1', 'layer4')),
        ('layer?.1', tuple(f'layer{i}.1' for i in range(1, 5))),
        ('layer4.*', ('layer4.0', 'layer4.1')),
        ('4,layer4', ('layer4',)),
        ('1,layer4.*.bn2', ('layer1', 'layer4.0.bn2', 'layer4.1.bn2')),
        (3, ('layer3',)),
        (' last ', ('layer4',)),
    ],
)
def test_resnet18(resnet18, spec, names):
    assert resolve_blocks(resnet18, spec) == names


def test_the_papers_counts(resnet18):
    assert len(resolve_blocks(resnet18, 'units')) == 9
    assert len(resolve_blocks(resnet18, 'convs')) == 20


@pytest.mark.parametrize(
    ('arch', 'stages', 'units'),
    [
        ('resnet20s', 3, 10),
        ('resnet56s', 3, 28),
        ('resnet18_cifar', 4, 9),
        ('resnet50', 4, 17),
        ('resnet152', 4, 51),
        ('efficientnet_b0', 7, 17),
        ('vit_tiny_patch16_224', 12, None),
        ('swin_tiny_patch4_window7_224', 4, None),
        ('convnext_tiny', 4, None),
        ('mobilenetv3_small_100', None, None),
        ('densenet121', 4, None),
    ],
)
def test_families(arch, stages, units):
    model = meta(arch)
    found = resolve_blocks(model, 'all')
    assert stages is None or len(found) == stages
    assert units is None or len(resolve_blocks(model, 'units')) == units
    assert resolve_blocks(model, 'last') == found[-1:]


def test_units_are_evenly_spaced():
    names = [str(i) for i in range(28)]
    nine = evenly(names, 9)
    assert (len(nine), nine[0], nine[-1]) == (9, '0', '27')
    gaps = [int(b) - int(a) for a, b in pairwise(nine)]
    assert max(gaps) - min(gaps) <= 1
    for count in range(1, 29):
        assert len(set(evenly(names, count))) == count
        assert evenly(names, count)[-1] == '27'


@pytest.mark.parametrize(
    ('spec', 'parts'),
    [
        ('layer9', ("'layer9'", 'layer4', "'units'")),
        ('5', ('stage 5', '4 = layer4')),
        ('0', ('stage 0',)),
        ('-1', ('stage -1',)),
        ('units:10', ('1 to 9', 'units:9')),
        ('units:0', ('1 to 9',)),
        ('units:x', ('1 to 9',)),
        ('--3', ("'--3'",)),
        ('²', ("'²'",)),
        ('units:²', ('1 to 9',)),
        ('', ('empty',)),
        (',', ('empty',)),
        ('last,5', ("'last'",)),
        ('lasst', ("'lasst'",)),
        ('unitss', ('unitss',)),
    ],
)
def test_specs_that_name_nothing(resnet18, spec, parts):
    with pytest.raises(BlockError) as caught:
        resolve_blocks(resnet18, spec)
    assert '\n' not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_network_without_convolutions():
    with pytest.raises(BlockError, match='names nothing'):
        resolve_blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 'convs')


def test_models_that_timm_does_not_know():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    assert resolve_blocks(model, 'last') == ('2',)
    assert resolve_blocks(model, '1') == ('2',)


def test_wrappers_are_looked_through():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    compiled = torch.compile(model, backend='eager')
    assert resolve_blocks(compiled, 'last') == ('0',)


@pytest.mark.parametrize('row', FAMILIES, ids=lambda row: row.module)
def test_rows_are_of_modules_that_there_are_and_match(row):
    """A row whose globs match nothing in any of its module's models would be silently derived."""
    if row.module not in timm.list_modules():
        pytest.skip(f'timm has no module {row.module}')
    model = meta(timm.list_models(module=row.module)[0])
    if row.stages:
        assert resolve_blocks(model, 'all') == matching(model, row.stages)
    if row.units:
        assert resolve_blocks(model, 'units') == matching(model, row.units)


def test_shapes_of_features():
    x = torch.zeros(2, 3, 4)
    assert feature_shape(x) == [3, 4]
    assert feature_shape((x, {'a': x[:, :1]})) == [[3, 4], [[1, 4]]]
    assert feature_shape(None) is None


@pytest.mark.parametrize('names', [('layer1', 'layer4'), ['layer4', 'layer1'], (1, 4)])
def test_names_in_a_list_are_those_of_the_spec(resnet18, names):
    assert resolve_blocks(resnet18, names) == ('layer1', 'layer4')


@pytest.mark.parametrize(('given', 'meant'), [('lst', 'last'), ('layer44', 'layer4'), ('unit', 'units')])
def test_a_typo_gets_a_suggestion(given, meant):
    with pytest.raises(BlockError, match=f"no module is named '{given}' in ResNet. Did you mean '{meant}'"):
        resolve_blocks(timm.create_model('resnet18'), given)
