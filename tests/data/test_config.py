import pytest

from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.data.datasets.registry import KINDS
from timm_alfa.options import build, resolve


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
def test_errors_name_the_option(values, word):
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


@pytest.mark.parametrize(
    ('options', 'name', 'short_name'),
    [
        (dict(), 'digits', 'digits'),
        (dict(dataset='hfds/uoft-cs/cifar10'), 'hfds/uoft-cs/cifar10', 'cifar10'),
        (dict(data_dir='/data/pets/'), '/data/pets/', 'pets'),
        (dict(dataset='wds/x', data_dir='/data/shards'), 'wds/x', 'x'),
    ],
)
def test_the_data_is_called_as_the_user_calls_it(options, name, short_name):
    data = DataConfig(**options)
    assert (data.name, data.short_name) == (name, short_name)


def test_the_help_lists_every_kind_and_its_options():
    helps = {name: field.metadata['help'] for name, field in DataConfig.__dataclass_fields__.items()}
    for key, kind in KINDS.items():
        assert all(pattern in helps['dataset'] for pattern in kind.patterns)
        assert all(f'{text} ({key})' in helps[name] for name, text in kind.options.items())
