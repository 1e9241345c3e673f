"""Paths and addresses in text that is published."""

import getpass
import socket

import pytest

from timm_alfa.utils.paths import hide_paths


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('/home/me/data/pets', '/PATH/pets'),
        ('/home/me/My Data/pets', '/PATH/pets'),
        ('/home/me', '/PATH'),
        ('/Users/me/', '/PATH'),
        ('~/data/pets', '/PATH/pets'),
        ('~me/data', '/PATH/data'),
        ('../me/pets', '/PATH/pets'),
        ('$HOME/pets', '/PATH/pets'),
        ('C:\\Users\\me\\pets', '/PATH/pets'),
        ('\\\\nas\\share\\pets', '/PATH/pets'),
        ('--data-dir=/home/me/a b', '--data-dir=/PATH/a b'),
        ('hfds//home/me/pets', 'hfds//PATH/pets'),
        ('local-dir:/home/me/run', 'local-dir:/PATH/run'),
        ('me@host:/data/pets', '/PATH/pets'),
        ('s3://bucket/key/pets.tar', '/PATH/pets.tar'),
        ('https://host.example/a/pets.tar?sig=1', '/PATH/pets.tar'),
        ('https://host.example', '/PATH'),
        ('file:///home/me/pets', '/PATH/pets'),
        ("read '/home/me/pets', then /home/me/cats", "read '/PATH/pets', then /PATH/cats"),
        (f'/scratch/{getpass.getuser()}', '/PATH'),
        (f'/net/{socket.gethostname()}', '/PATH'),
    ],
)
def test_hidden(text, shown):
    assert hide_paths(text) == shown


@pytest.mark.parametrize(
    'text',
    [
        'hfds/uoft-cs/cifar10',
        'hf-hub:me/other@v2',
        'https://huggingface.co/me/x',
        '0.5/255',
        'output/run',
        'and/or',
        'train (10% held out)',
        'rand-m9-mstd0.5',
        '',
        '/',
    ],
)
def test_kept(text):
    assert hide_paths(text) == text


def test_in_lists_and_mappings():
    assert hide_paths({'a': ['/home/me/x', 1, None], 'b': {'/home/me/k': True}}) == {
        'a': ['/PATH/x', 1, None],
        'b': {'/PATH/k': True},
    }
