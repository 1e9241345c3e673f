import pytest

from timm_alfa.data.config import AugConfig, DataConfig, idle_options, pair_errors
from timm_alfa.options import build, resolve


def test_defaults_are_legal_and_have_nothing_idle():
    for kind, loader in (('digits', 'memory'), ('folder', 'timm'), ('hfds', 'memory')):
        assert not list(idle_options(DataConfig(), AugConfig(), kind, loader))
    assert not list(AugConfig().errors())


@pytest.mark.parametrize(
    ('values', 'word'),
    [
        (dict(scale='1 0.5'), '--scale'),
        (dict(ratio='1'), '--ratio'),
        (dict(cutmix_minmax=(0.2, 0.3, 0.4)), '--cutmix-minmax'),
        (dict(aa='nonsense'), '--aa'),
        (dict(hflip=1.5), '--hflip'),
        (dict(remode='pixels'), "Did you mean 'pixel'"),
        (dict(mixup=float('nan')), 'finite'),
    ],
)
def test_faults_name_the_option(values, word):
    _, errors = resolve(AugConfig, values, flag_name=lambda name: '--' + name.replace('_', '-'))
    assert len(errors) == 1 and word in errors[0]


def test_pairs_are_read_from_the_command_line():
    aug = build(AugConfig, dict(scale='0.2 1', ratio=[0.75, 1.33], aa='rand-m9-mstd0.5', color_jitter='0'))
    assert (aug.scale, aug.ratio, aug.color_jitter) == ((0.2, 1.0), (0.75, 1.33), 0.0)


@pytest.mark.parametrize(
    ('aug', 'mixes'),
    [(dict(), False), (dict(mixup=0.2), True), (dict(cutmix=1.0), True), (dict(cutmix_minmax=(0.2, 0.8)), True)],
)
def test_mixes(aug, mixes):
    assert AugConfig(**aug).mixes is mixes


def test_the_memory_loader_refuses_what_only_timm_does():
    aug = AugConfig(aa='original', color_jitter=0.4, hflip=0.1)
    errors = list(pair_errors(DataConfig(loader='memory'), aug))
    assert [fault.split()[0] for fault in errors] == ['--color-jitter', '--aa']
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
def test_idle_options_are_told(data, aug, kind, loader, names):
    lines = list(idle_options(DataConfig(**data), AugConfig(**aug), kind, loader))
    assert [line.split()[0] for line in lines] == names
