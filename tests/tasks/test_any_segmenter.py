"""Segmenters of segmentation_models_pytorch with timm's encoders: exact, whatever skips around a feature."""

import pytest
import torch
from helpers.any_model import check_any_step, share_of_floor

smp = pytest.importorskip('segmentation_models_pytorch', reason='the segmenters come from it')

DECODERS = {
    'Unet': dict(decoder_channels=(16, 8, 8, 8, 4)),
    'FPN': dict(decoder_pyramid_channels=32, decoder_segmentation_channels=32),
    'DeepLabV3Plus': dict(decoder_channels=8),
}


def made(architecture, encoder='tu-test_resnet', size=32, **kwargs):
    torch.manual_seed(0)
    options = DECODERS[architecture] | kwargs
    model = getattr(smp, architecture)(encoder, encoder_weights=None, classes=3, **options).double()
    image = torch.randn(2, 3, size, size, dtype=torch.float64)
    mask = torch.randint(3, (2, size, size))
    mask[:, :4] = 255  # not labeled
    return model, (image, mask)


def summed(output, image, mask):
    """A sum over the labeled pixels: no mean over the batch."""
    losses = torch.nn.functional.cross_entropy(output, mask, ignore_index=255, reduction='none')
    return losses.sum() / 100 + smp.losses.DiceLoss('multiclass', ignore_index=255)(output, mask)


@pytest.mark.parametrize(
    ('architecture', 'blocks', 'options'),
    [
        ('Unet', 'last', dict()),
        ('Unet', 'encoder', dict()),
        ('Unet', 'encoder.model.layer3,encoder.model.layer4', dict(grad='tail')),
        ('Unet', 'encoder.model.layer?', dict(mode='joint')),
        ('FPN', 'last', dict(bn='shared')),
        ('FPN', 'encoder', dict()),
        ('DeepLabV3Plus', 'encoder.model.layer3,decoder.aspp', dict()),
    ],
    ids=str,
)
def test_segmenters(architecture, blocks, options):
    model, batch = made(architecture)
    check_any_step(model, batch, blocks, loss=summed, steps=2, step_size=0.02, **options)


@pytest.mark.parametrize(('architecture', 'blocks'), [('Unet', 'last'), ('Unet', 'encoder'), ('FPN', 'all')])
def test_a_step_is_at_the_floor(architecture, blocks):
    """A search runs the decoder, whatever skips around the feature, and nothing before it."""
    model, batch = made(architecture)
    assert share_of_floor(model, batch, blocks, steps=3, loss=summed) <= 1.02


def test_the_stages_are_those_of_the_encoder():
    from timm_alfa import resolve_blocks

    model, _ = made('Unet')
    assert resolve_blocks(model, 'all') == tuple(f'encoder.model.layer{i}' for i in (1, 2, 3, 4))
    assert resolve_blocks(model, 'last') == ('encoder.model.layer4',)
    own, _ = made('Unet', 'resnet18')
    assert resolve_blocks(own, '3') == ('encoder.layer3',)
    assert resolve_blocks(own, 'units')[:2] == ('encoder.layer1.0', 'encoder.layer1.1')
