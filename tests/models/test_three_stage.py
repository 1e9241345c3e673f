"""He et al.'s network and its option-A shortcut against plain rewritings."""

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from timm_alfa.errors import ConfigError
from timm_alfa.models import ThreeStageResNet, ZeroPadShortcut

WIDTHS = st.integers(1, 5)


def shortcut_rewritten(x, out_chs, stride):
    """Option A, one pixel at a time."""
    n, in_chs, height, width = x.shape
    first = (out_chs - in_chs) // 2
    y = x.new_zeros(n, out_chs, -(-height // stride), -(-width // stride))
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            y[:, first : first + in_chs, row, column] = x[:, :, row * stride, column * stride]
    return y


@settings(max_examples=40, deadline=None)
@given(in_chs=WIDTHS, extra=st.integers(0, 5), stride=st.integers(1, 3), height=WIDTHS, width=WIDTHS)
def test_shortcut_and_its_gradient_are_those_of_a_rewriting(in_chs, extra, stride, height, width):
    torch.manual_seed(0)
    x = torch.randn(2, in_chs, height, width, dtype=torch.float64, requires_grad=True)
    ours = ZeroPadShortcut(in_chs, in_chs + extra, stride)(x)
    plain = shortcut_rewritten(x, in_chs + extra, stride)
    assert torch.equal(ours, plain)
    weight = torch.randn_like(plain)
    assert torch.equal(*(torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, plain)))


def test_shortcut_has_no_state_and_keeps_the_memory_format():
    shortcut = ZeroPadShortcut(16, 32, 2)
    assert not shortcut.state_dict()
    assert not list(shortcut.parameters())
    x = torch.randn(2, 16, 8, 8)
    assert shortcut(x).is_contiguous()
    assert shortcut(x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def test_shortcut_cannot_lose_channels():
    with pytest.raises(ConfigError, match='from 32 to 16 channels: use 32 or more'):
        ZeroPadShortcut(32, 16)


def network_rewritten(state, x, units):
    """He et al.'s network as functions of a state dict, in training mode."""

    def norm(x, name):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        scale, shift = (state[f'{name}.{part}'].view(1, -1, 1, 1) for part in ('weight', 'bias'))
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv_norm(x, prefix, number, stride=1):
        x = F.conv2d(x, state[f'{prefix}conv{number}.weight'], stride=stride, padding=1)
        return norm(x, f'{prefix}bn{number}')

    x = conv_norm(x, '', 1).relu()
    for stage in (1, 2, 3):
        for unit in range(units):
            prefix, stride = f'layer{stage}.{unit}.', 2 if stage > 1 and unit == 0 else 1
            shortcut = x if stride == 1 else shortcut_rewritten(x, 2 * x.shape[1], 2)
            y = conv_norm(conv_norm(x, prefix, 1, stride).relu(), prefix, 2)
            x = (y + shortcut).relu()
    return x.mean((2, 3)) @ state['fc.weight'].T + state['fc.bias']


def test_network_and_every_gradient_are_those_of_a_rewriting():
    torch.manual_seed(0)
    model = timm.create_model('resnet20s').double().train()
    x = torch.randn(4, 3, 12, 10, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    ours, plain = model(x), network_rewritten(parameters, x, units=3)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10)
    grads = [torch.autograd.grad(y.square().sum(), list(parameters.values())) for y in (ours, plain)]
    for name, mine, theirs in zip(parameters, *grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9, msg=name)


def test_initial_weights_are_he_et_als():
    torch.manual_seed(0)
    model = timm.create_model('resnet56s')
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
            assert (module.bias == 0).all(), name
        if isinstance(module, torch.nn.Conv2d):
            std = (2 / (9 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(std, rel=0.15), name
    assert all((unit.bn2.weight == 0).all() for unit in timm.create_model('resnet20s', zero_init_last=True).layer3)


@pytest.mark.parametrize(('stride', 'size', 'dilation'), [(4, 8, 1), (2, 16, 2), (1, 32, 4)])
def test_output_stride_trades_stride_for_dilation(stride, size, dilation):
    model = timm.create_model('resnet20s', output_stride=stride).eval()
    assert model.forward_features(torch.randn(1, 3, 32, 32)).shape == (1, 64, size, size)
    assert model.layer3[-1].conv2.dilation == (dilation, dilation)
    assert model.feature_info[-1]['reduction'] == stride


@pytest.mark.parametrize('name', ['resnet20s', 'resnet18_cifar'])
def test_unknown_output_stride_names_the_valid_ones(name):
    with pytest.raises(ConfigError, match=r'output_stride is 32: use one of .*2, 4'):
        timm.create_model(name, output_stride=32)


def test_stochastic_depth_and_dropout_reach_their_places():
    model = timm.create_model('resnet20s', drop_path_rate=0.8, drop_rate=0.5, drop_block_rate=0.1)
    units = [*model.layer1, *model.layer2, *model.layer3]
    rates = [unit.drop_path.drop_prob if unit.drop_path else 0.0 for unit in units]
    assert rates == pytest.approx([0.1 * index for index in range(9)])
    torch.manual_seed(0)
    zeros = (model.forward_head(torch.ones(1, 64, 8, 8), pre_logits=True) == 0).float().mean()
    assert 0.2 < zeros < 0.8
    assert model.layer3[0].drop_block.drop_prob == 0.1


def test_other_widths_activations_norms_and_dtypes():
    model = ThreeStageResNet(
        (1, 2, 1),
        channels=(8, 12, 30),
        act_layer='silu',
        norm_layer='groupnorm1',
        block_args={'attn_layer': 'se'},
        dtype=torch.float64,
    )
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    assert model(x).dtype == torch.float64
    assert model.forward_features(x).shape == (2, 30, 3, 2)
    assert isinstance(model.act1, torch.nn.SiLU)
    assert not any('running' in key for key in model.state_dict())


def test_features_that_are_not_nchw_are_refused():
    with pytest.raises(ConfigError, match="output_fmt is 'NLC': use 'NCHW'"):
        timm.create_model('resnet20s').forward_intermediates(torch.randn(1, 3, 8, 8), output_fmt='NLC')
