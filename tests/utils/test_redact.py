"""No secret gets past `redact`, and what is no secret stays."""

import time

import pytest

from timm_alfa.utils.redact import redact

SECRET = 'Zq7' + 'x9Kd2Lm5Rt8' * 3


@pytest.mark.parametrize(
    'text',
    [
        f'hf_{SECRET}',
        f'ghp_{SECRET}',
        f'github_pat_11A_{SECRET}',
        f'glpat-{SECRET}',
        f'xoxb-12-{SECRET}',
        f'xoxa-2-{SECRET}',
        f'xoxp-{SECRET}',
        'AKIAIOSFODNN7EXAMPLE',
        f'run_hf_{SECRET}',
        f'Authorization: Bearer {SECRET}',
        f'authorization: Basic {SECRET}',
        f'failed with bearer {SECRET}, again',
        f'https://{SECRET}@host/x',
        f'https://me:{SECRET}@host/x',
        f'https://me:p@{SECRET}@host/x',
        f'https://me:p/{SECRET}@host/x',
        f'https://host/x?access_token={SECRET}',
        f'https://host/x?size=3&X-Amz-Signature={SECRET}',
        f'https://host/x;token={SECRET}',
        f'https://host/x#id_token={SECRET}',
        f'https://host/token/{SECRET}/x',
        f'https://host/services/T0/B0/{SECRET}',
        f'see (https://host/ghp_{SECRET}/x).',
        f'train.py --hub-token={SECRET} --lr 1',
        f'train.py --hub-token {SECRET} --lr 1',
        f'--api-key "{SECRET} two"',
        f'password: {SECRET}',
        f'{{"client_secret": "{SECRET}"}}',
        f'-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----',
        f'eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}',
    ],
)
def test_a_secret_in_text_is_hidden(text):
    found = redact(text)
    assert SECRET not in found
    assert 'IOSFODNN7EXAMPLE' not in found
    assert '***' in found
    assert redact(found) == found


@pytest.mark.parametrize(
    'value',
    [
        ['train.py', '--hub-token', SECRET, '--lr', '1'],
        ['train.py', f'--password={SECRET}'],
        {'api_key': SECRET},
        {'credentials': {'user': SECRET}},
        {'secrets': [SECRET, SECRET]},
        {f'hf_{SECRET}': 1},
        [{'note': f'token={SECRET}'}],
    ],
)
def test_a_secret_in_a_structure_is_hidden(value):
    assert SECRET not in str(redact(value))


@pytest.mark.parametrize(
    'value',
    [
        'resnet20s.alfa_c10',
        'hfds/uoft-cs/cifar10',
        '/data/imagenet/train',
        'https://host:8080/data/x.tar?size=3',
        'https://huggingface.co/datasets/uoft-cs/cifar10@refs/convert',
        'pipe:aws s3 cp s3://bucket/imagenet-{000..146}.tar -',
        'global_pool=token',
        'class_token=False num_tokens=768',
        '7cb0657610f4eb268a8a5812f670bfa66202eca9114746e0197383e2898be847',
        'train.py --model resnet20s --alfa-step-size 0.5/255 --opt-betas 0.9 0.99',
        {'lr': 0.1, 'epochs': 3, 'pretrained': True, 'seed': None, 'class_token': False, 'target_key': 'label'},
        ['--use-token', '--lr', '1'],
        '',
    ],
)
def test_what_is_no_secret_stays(value):
    assert redact(value) == value


def test_values_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv('MY_API_KEY', 'correct horse')
    assert redact({'note': 'it is correct horse battery'}) == {'note': 'it is *** battery'}


def test_a_long_text_takes_linear_time():
    began = time.perf_counter()
    for unit in ('a-', 'token', 'https://a:', '/x/', '--token', 'eyJ'):
        redact(unit * 20_000)
    assert time.perf_counter() - began < 20
