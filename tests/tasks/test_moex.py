"""MoEx against its definition, written with means and standard deviations of plain slices."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.rewriting import hooked
from helpers.settings import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from timm_alfa import create_task
from timm_alfa.errors import AlfaWarning, BlockError, ConfigError
from timm_alfa.perturb.moments import EPSILON, exchange_moments


def slices(feature, norm, groups):
    """Index tuples of what shares a pair of moments, within one image [C, H, W]."""
    channels, height, width = feature.shape
    if norm == 'pono':
        return [(slice(None), y, x) for y in range(height) for x in range(width)]
    size = 1 if norm == 'in' else channels // groups
    return [(slice(c, c + size),) for c in range(0, channels, size)]


def plain_exchange(feature, partner, norm, groups=4):
    images = []
    for own, other in zip(feature, feature[partner], strict=True):
        image = torch.empty_like(own)
        for at in slices(own, norm, groups):
            mean, std = own[at].mean(), (own[at].var(unbiased=False) + EPSILON).sqrt()
            their_mean, their_std = other[at].mean(), (other[at].var(unbiased=False) + EPSILON).sqrt()
            image[at] = their_std * (own[at] - mean) / std + their_mean
        images.append(image)
    return torch.stack(images)


@pytest.mark.parametrize(('norm', 'groups'), [('pono', 4), ('in', 4), ('gn', 4), ('gn', 1), ('gn', 2)])
@pytest.mark.parametrize('channels_last', [False, True])
def test_moments_are_the_partners(norm, groups, channels_last):
    feature, partner = torch.randn(5, 8, 3, 4).double() * 3 + 1, torch.tensor([1, 0, 4, 3, 2])
    expected = plain_exchange(feature, partner, norm, groups)
    given = feature.permute(0, 2, 3, 1) if channels_last else feature
    found = exchange_moments(given, partner, norm, groups, channels_last)
    torch.testing.assert_close(found.permute(0, 3, 1, 2) if channels_last else found, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(['pono', 'in', 'gn']), st.floats(-100, 100), st.floats(0, 50))
def test_between_equal_images_it_is_the_identity(norm, shift, scale):
    image = torch.randn(1, 4, 3, 3).double() * scale + shift
    feature = image.expand(3, -1, -1, -1)
    torch.testing.assert_close(exchange_moments(feature, torch.tensor([2, 0, 1]), norm), feature)


@pytest.mark.parametrize('norm', ['pono', 'in', 'gn'])
@pytest.mark.parametrize('soft', [False, True])
def test_a_step_is_the_definition(norm, soft):
    model, input, target = tiny(size=16)
    if soft:
        target = torch.rand(4, 5).double().softmax(1)
    task = create_task('moex', copy.deepcopy(model), nn.CrossEntropyLoss(), prob=1.0, norm=norm, lam=0.8)
    torch.manual_seed(5)
    result = task(input, target)
    result['loss'].backward()
    torch.manual_seed(5)
    torch.rand(())
    partner = torch.randperm(4)
    assert (partner != torch.arange(4)).any()
    with hooked(model, {'act1': lambda m, a, feature: plain_exchange(feature, partner, norm)}):
        output = model(input)
    loss = 0.8 * F.cross_entropy(output, target) + 0.2 * F.cross_entropy(output, target[partner])
    loss.backward()
    torch.testing.assert_close(result['loss'].detach(), loss.detach())
    torch.testing.assert_close(result['output'].detach(), output.detach())
    for p, q in zip(task.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)
    for p, q in zip(task.model.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(p, q)


def test_moments_are_exchanged_in_a_share_of_the_batches():
    model, input, target = tiny(size=16, dtype=torch.float32)
    task = create_task('moex', model, prob=0.3)
    exchanged = 0
    with torch.no_grad():
        model(input)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        plain = model(input)
    for _ in range(200):
        exchanged += not torch.equal(task(input, target)['output'], plain)
    assert 35 <= exchanged <= 85  # 60 on average; within four standard deviations, less the identity permutations


STEMS = (
    ('resnet20s', 'act1'),
    ('resnet18', 'act1'),
    ('test_resnet', 'act1'),
    ('test_efficientnet', 'bn1'),
    ('test_vit', 'patch_embed'),
    ('test_convnext', 'stem'),
    ('densenet121', 'features.norm0'),
    ('swin_tiny_patch4_window7_224', 'patch_embed'),
    ('mixer_s32_224', 'stem'),
    ('regnetx_002', 'stem'),
    ('mobilenetv3_small_050', 'bn1'),
    ('pit_ti_224', 'patch_embed'),
    ('poolformer_s12', 'stem'),
)


@pytest.mark.parametrize(('arch', 'stem'), STEMS)
def test_the_stem_is_what_the_family_calls_it(arch, stem):
    model = timm.create_model(arch, num_classes=5)
    assert create_task('moex', model).layer == stem


def test_channels_are_where_the_family_has_them():
    for arch, size in (('test_vit', 32), ('swin_tiny_patch4_window7_224', 56)):
        model = timm.create_model(arch, num_classes=5, img_size=size)
        task = create_task('moex', model, prob=1.0)
        seen = []

        def watch(m, a, feature, seen=seen):
            seen.append(feature)

        with hooked(model, {task.layer: watch}):
            model(torch.randn(3, 3, size, size))
        partner = torch.tensor([1, 2, 0])
        found = task.exchanged(seen[0], partner)
        torch.testing.assert_close(found.mean(-1), seen[0][partner].mean(-1), rtol=1e-4, atol=1e-5)


def test_a_patch_embedding_that_returns_an_image_is_exchanged_as_one_that_returns_tokens():
    """With dynamic_img_size a ViT's patch embedding is NHWC: channels are last in both."""
    tokens = timm.create_model('test_vit', num_classes=5, img_size=32, dynamic_img_size=False).eval()
    image = timm.create_model('test_vit', num_classes=5, img_size=32, dynamic_img_size=True).eval()
    image.load_state_dict(tokens.state_dict())
    x, partner, found = torch.randn(3, 3, 32, 32), torch.tensor([1, 2, 0]), []
    for model in (tokens, image):
        task = create_task('moex', model, prob=1.0, norm='pono')
        assert task.layer == 'patch_embed'
        with torch.no_grad():
            found.append(task.exchanged(model.patch_embed(x), partner).flatten(1))
    assert (tokens.patch_embed(x).ndim, image.patch_embed(x).ndim) == (3, 4)
    torch.testing.assert_close(found[0], found[1])


def test_checkpointing_does_not_lose_the_exchange():
    grads = []
    for checkpointing in (False, True):
        model, input, target = tiny(size=16)
        model.set_grad_checkpointing(checkpointing)
        task = create_task('moex', model, prob=1.0, layer='layer2.1')
        torch.manual_seed(2)
        task(input, target)['loss'].backward()
        grads.append([p.grad for p in model.parameters()])
        assert getattr(model, 'grad_checkpointing', checkpointing) == checkpointing
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ('layer', 'says'),
    [
        ('layer9', "no module is named 'layer9'"),
        ('layer2.*', 'names 3 modules'),
        ('all', 'names 3 modules'),
    ],
)
def test_layers_that_are_no_single_module_are_refused(layer, says):
    with pytest.raises(BlockError, match=says):
        create_task('moex', tiny()[0], layer=layer)


def test_layers_without_positions_are_refused():
    model, input, target = tiny()
    with pytest.raises(BlockError, match='need images, channels and positions'):
        create_task('moex', model, layer='fc', prob=1.0)(input, target)
    with pytest.raises(ConfigError, match='must divide the 16 channels'):
        create_task('moex', model, norm='gn', groups=3, prob=1.0)(input, target)


def test_layers_that_are_called_twice_are_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.head = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.LazyLinear(5)

        def forward(self, x):
            return self.head(self.act(self.act(self.conv(x))).flatten(1))

    with pytest.raises(BlockError, match="'act' is called 2 times"):
        create_task('moex', Twice(), layer='act', prob=1.0)(torch.randn(2, 3, 4, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ('config', 'says'), [(dict(prob=0), 'never exchanged'), (dict(groups=2), "norm='pono'")], ids=str
)
def test_options_without_effect_warn(config, says):
    with pytest.warns(AlfaWarning, match=says):
        create_task('moex', tiny()[0], **config)


@pytest.mark.parametrize('config', [dict(lam=1.1), dict(prob=-0.1), dict(norm='bn'), dict(groups=0)], ids=str)
def test_wrong_options_are_refused(config):
    with pytest.raises(ConfigError):
        create_task('moex', tiny()[0], **config)
