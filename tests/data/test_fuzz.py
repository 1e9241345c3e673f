"""Any legal augmentation gives batches, the same ones after a stop; any illegal one ends in our error."""

import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timm_alfa.data import AugConfig, DataConfig, create_data
from timm_alfa.errors import AlfaError
from timm_alfa.options import build

chance = st.floats(0, 1)
alpha = st.sampled_from([0, 0.1, 1, 8])
legal = st.fixed_dictionaries(
    {},
    optional={
        'no_aug': st.booleans(),
        'crop_padding': st.integers(0, 40),
        'hflip': chance,
        'vflip': chance,
        'scale': st.sampled_from(['0.08 1', '0.5 0.5', '1 4']),
        'ratio': st.sampled_from(['3/4 4/3', '0.01 100']),
        'color_jitter': st.sampled_from([0, 0.4, 2]),
        'aa': st.sampled_from(['rand-m9-mstd0.5', 'original', 'augmix-m3']),
        'reprob': chance,
        'remode': st.sampled_from(['const', 'rand', 'pixel']),
        'recount': st.integers(1, 4),
        'train_interpolation': st.sampled_from(['random', 'nearest', 'bicubic']),
        'mixup': alpha,
        'cutmix': alpha,
        'cutmix_minmax': st.sampled_from([None, '0.2 0.8', '0 1']),
        'mixup_prob': chance,
        'mixup_switch_prob': chance,
        'mixup_mode': st.sampled_from(['batch', 'pair', 'elem']),
        'mixup_off_epoch': st.integers(0, 2),
        'smoothing': st.floats(0, 0.9),
    },
)
illegal = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.floats(-1, 2), max_size=3),
)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp('fuzz')
    for split, count in (('train', 9), ('val', 3)):
        for label in 'ab':
            (root / split / label).mkdir(parents=True)
            for at in range(count):
                Image.effect_noise((12, 10), 40 + at).save(root / split / label / f'{at}.png')
    return root


def batches(root, aug, channels, batch_size, start):
    options = DataConfig(data_dir=str(root), batch_size=batch_size, workers=0)
    model_config = {'input_size': (channels, 16, 16), 'mean': (0.5,), 'std': (0.25,)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loader = create_data(options, aug, model_config=model_config, seed=3).train
    loader.set_epoch(1, start)
    return list(loader)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=legal, channels=st.sampled_from([1, 3]), batch_size=st.integers(1, 20))
def test_legal_options_give_batches_that_can_be_resumed(root, values, channels, batch_size):
    aug = build(AugConfig, values)
    whole = batches(root, aug, channels, batch_size, 0)
    assert len(whole) == max(1, 18 // batch_size)
    for input, target in whole:
        assert input.shape == (min(batch_size, 18), channels, 16, 16) and input.isfinite().all()
        assert target.shape == ((len(input), 2) if aug.mixes else (len(input),))
        if aug.mixes:
            assert torch.allclose(target.sum(1), torch.ones(len(target)), atol=1e-5)
    (last,) = batches(root, aug, channels, batch_size, len(whole) - 1)
    assert last[0].equal(whole[-1][0]) and last[1].equal(whole[-1][1])


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(AugConfig.__dataclass_fields__)), value=illegal)
def test_any_other_value_is_read_or_ends_in_our_error(name, value):
    try:
        build(AugConfig, {name: value})
    except AlfaError as error:
        assert name.split('_')[0] in str(error)
