import pytest

from timm_alfa.data.checks import no_effect, pair_errors
from timm_alfa.data.config import AugConfig, DataConfig


def test_defaults_are_legal_and_have_an_effect():
    for kind, loader in (('digits', 'memory'), ('folder', 'timm'), ('hfds', 'memory')):
        assert not list(no_effect(DataConfig(), AugConfig(), kind, loader))
    assert not list(AugConfig().errors())


def test_the_memory_loader_refuses_what_only_timm_does():
    aug = AugConfig(aa='original', color_jitter=0.4, hflip=0.1)
    errors = list(pair_errors(DataConfig(loader='memory'), aug))
    assert [line.split()[0] for line in errors] == ['--color-jitter', '--aa']
    assert not list(pair_errors(DataConfig(), aug))


@pytest.mark.parametrize(
    ('data', 'aug', 'kind', 'loader', 'names'),
    [
        (dict(data_dir='x', class_map='y'), {}, 'digits', 'memory', ['--data-dir', '--class-map']),
        (dict(input_key='img'), {}, 'folder', 'timm', ['--input-key']),
        ({}, dict(crop_padding=2), 'folder', 'timm', ['--crop-padding']),
        ({}, dict(no_aug=True, hflip=0.1, reprob=0.5), 'folder', 'memory', ['--hflip', '--reprob']),
        ({}, dict(remode='const'), 'folder', 'memory', ['--remode']),
        ({}, dict(mixup_prob=0.5), 'folder', 'memory', ['--mixup-prob']),
        ({}, dict(mixup_prob=0.5, mixup=0.2), 'folder', 'memory', []),
    ],
)
def test_options_without_effect_are_reported(data, aug, kind, loader, names):
    lines = list(no_effect(DataConfig(**data), AugConfig(**aug), kind, loader))
    assert [line.split()[0] for line in lines] == names
