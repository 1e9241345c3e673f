"""torchvision's detectors: batches of lists, outputs of losses, random sampling, shared heads, frozen batch norms."""

import pytest
import timm
import torch
from helpers.any_model import check_any_step, share_of_floor
from timm.layers import freeze_batch_norm_2d
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from timm_alfa import create_task, resolve_blocks
from timm_alfa.errors import BlockError

SIZE = dict(min_size=64, max_size=64)


def call(model, images, targets):
    return model(images, targets)


def loss(losses, images, targets):
    return sum(losses.values())


def backbone(levels=(3, 4), frozen=False, channels_out=8):
    """A tiny ResNet of timm below a feature pyramid."""
    body = timm.create_model('test_resnet')
    if frozen:
        body = freeze_batch_norm_2d(body)
    channels = [body.feature_info[level]['num_chs'] for level in levels]
    getter = {f'layer{level}': str(i) for i, level in enumerate(levels)}
    pyramid = BackboneWithFPN(body, getter, channels, channels_out)
    assert isinstance(pyramid.body, IntermediateLayerGetter)
    return pyramid


def faster_rcnn(**kwargs):
    return FasterRCNN(
        backbone(**kwargs),
        num_classes=3,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3),
        box_roi_pool=MultiScaleRoIAlign(['0', '1'], 3, 2),
        rpn_batch_size_per_image=8,  # of 336 anchors: which ones is drawn
        rpn_post_nms_top_n_train=40,
        box_batch_size_per_image=8,
        **SIZE,
    )


def retinanet():
    sizes = tuple((size,) for size in (8, 16, 32))
    return RetinaNet(backbone(), 3, anchor_generator=AnchorGenerator(sizes, ((1.0,),) * 3), **SIZE)


def fcos():
    sizes = tuple((size,) for size in (16, 32, 64))
    return FCOS(backbone(channels_out=32), 3, anchor_generator=AnchorGenerator(sizes, ((1.0,),) * 3), **SIZE)


def ssdlite():
    """SSD with depthwise heads, as in torchvision's SSDLite, which is made for larger images."""
    anchors = DefaultBoxGenerator([[2]] * 3)
    head = SSDLiteHead([8] * 3, anchors.num_anchors_per_location(), 3, nn.BatchNorm2d)
    return SSD(backbone(), anchors, (64, 64), 3, head=head)


def made(detector, size=64):
    torch.manual_seed(0)
    model = detector().double()
    images = [torch.rand(3, size, size, dtype=torch.float64), torch.rand(3, size, size - 8, dtype=torch.float64)]
    boxes = [[[4.0, 6, 30, 40], [20, 20, 60, 50]], [[10.0, 8, 44, 50]]]
    targets = [{'boxes': torch.tensor(b, dtype=torch.float64), 'labels': torch.ones(len(b)).long()} for b in boxes]
    return model, (images, targets)


@pytest.mark.parametrize(
    ('detector', 'blocks', 'options'),
    [
        (faster_rcnn, 'backbone.body.layer4', dict()),
        (faster_rcnn, 'backbone', dict()),
        (faster_rcnn, 'backbone.body.layer3,backbone,roi_heads.box_head', dict()),
        (retinanet, 'backbone', dict(bn='shared')),
        (retinanet, 'last', dict(grad='tail')),
        (ssdlite, 'backbone.body.layer4,backbone', dict()),
        (fcos, 'backbone.body.layer?,backbone', dict(mode='joint')),
    ],
)
def test_detectors(detector, blocks, options):
    model, batch = made(detector)
    check_any_step(model, batch, blocks, call=call, loss=loss, steps=2, step_size=0.02, **options)


@pytest.mark.parametrize('blocks', ['backbone.body.layer4', 'backbone'])
@pytest.mark.parametrize('detector', [faster_rcnn, fcos])
def test_a_step_is_at_the_floor(detector, blocks):
    """A search runs the pyramid and the heads on the same draws, and nothing before the feature."""
    model, batch = made(detector)
    assert share_of_floor(model, batch, blocks, steps=3, call=call, loss=loss) <= 1.02


def test_frozen_batch_norms_and_frozen_layers():
    model, batch = made(lambda: faster_rcnn(frozen=True))
    model.backbone.body.requires_grad_(False)
    check_any_step(model, batch, 'backbone.body.layer4', call=call, loss=loss, steps=2, step_size=0.02)


def test_the_stages_are_those_of_the_backbone():
    model, _ = made(faster_rcnn)
    assert resolve_blocks(model, 'all') == ('backbone.body.layer3', 'backbone.body.layer4')


def test_boxes_count_although_the_first_batch_has_none():
    """What a record needs is learned from the first batch, in which nothing depends on the boxes."""
    losses = []
    for first in (True, False):
        model, (images, targets) = made(retinanet)
        task = create_task('alfa', model, call=call, loss=loss, blocks='backbone', steps=1)
        empty = [{'boxes': torch.zeros(0, 4, dtype=torch.float64), 'labels': torch.zeros(0).long()}] * 2
        state = [b.clone() for b in model.buffers()]
        if first:
            task(images, empty)
        for buffer, before in zip(model.buffers(), state, strict=True):
            buffer.copy_(before)
        losses.append(task(images, targets)['loss'])
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ('blocks', 'words'),
    [
        ('head.classification_head.cls_logits', r"cls_logits' is called 3 times.*such as 'backbone'"),
        ('backbone,head.regression_head.conv', r"conv' is called 3 times.*such as 'backbone'"),
        ('head.classification_head.conv.0.0', r"is called 3 times.*such as 'backbone'"),
    ],
)
def test_a_head_that_all_levels_share_is_no_feature(blocks, words):
    model, batch = made(retinanet)
    with pytest.raises(BlockError, match=words):
        create_task('alfa', model, call=call, loss=loss, blocks=blocks)(*batch)


def test_a_loss_among_features_is_refused():
    model, batch = made(faster_rcnn)
    with pytest.raises(BlockError, match=r"'rpn' returns a number, such as a loss.*before it, such as 'backbone'"):
        create_task('alfa', model, call=call, loss=loss, blocks='rpn')(*batch)
