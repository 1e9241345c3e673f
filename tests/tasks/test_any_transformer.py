"""Models of transformers: classifiers without `call`, a detector that computes its own loss."""

import pytest
import timm
import torch
from helpers.any_model import check_any_step

from timm_alfa import create_task, resolve_blocks

transformers = pytest.importorskip('transformers', reason='the models come from it')


def vit(**kwargs):
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_labels=3,
        hidden_dropout_prob=0.2,  # drawn alike in all passes
        **kwargs,
    )
    return transformers.ViTForImageClassification(config)


def wrapped_timm():
    config = transformers.TimmWrapperConfig(architecture='test_resnet', num_labels=3, model_args={})
    return transformers.TimmWrapperForImageClassification(config)


def detr():
    backbone = transformers.TimmBackboneConfig(backbone='test_resnet', out_indices=[3])
    config = transformers.DetrConfig(
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=5,
        num_labels=3,
        dropout=0.1,
    )
    return transformers.DetrForObjectDetection(config)


def made(model, size=16):
    torch.manual_seed(0)
    return model().double().train(), torch.randn(4, 3, size, size, dtype=torch.float64), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    ('model', 'blocks'),
    [(vit, 'vit.layers.0'), (vit, 'last'), (wrapped_timm, 'last'), (wrapped_timm, 'timm_model.layer?')],
)
def test_classifiers_need_no_call(model, blocks):
    model, image, target = made(model, 32 if model is wrapped_timm else 16)
    task, result = check_any_step(model, (image, target), blocks, steps=2, step_size=0.02)
    assert result['output'].shape == (4, 3)
    assert task.is_classifier


def test_a_wrapped_timm_model_has_timms_stages():
    assert resolve_blocks(made(wrapped_timm)[0], 'all') == tuple(f'timm_model.layer{i}' for i in (1, 2, 3, 4))


def test_a_model_that_computes_its_loss():
    model, image, target = made(vit)
    batch = dict(pixel_values=image, labels=target)
    check_any_step(model, (batch,), 'vit.layers.0', call=lambda model, batch: model(**batch), steps=1, step_size=0.02)


@pytest.fixture
def double():
    """The loss of DETR makes tensors of the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize('blocks', ['model.backbone', 'model.encoder.layers.0'])
def test_detr(blocks, double):
    model, image, _ = made(detr, 64)
    box = torch.tensor([[0.4, 0.4, 0.3, 0.3]], dtype=torch.float64)
    labels = [{'class_labels': torch.tensor([i % 3]), 'boxes': box + i / 20} for i in range(len(image))]
    mask = torch.ones(4, 64, 64, dtype=torch.long)
    mask[1, 40:] = 0
    batch = dict(pixel_values=image, pixel_mask=mask, labels=labels)
    check_any_step(model, (batch,), blocks, call=lambda model, batch: model(**batch), steps=2, step_size=0.02)


def test_numbers_are_those_of_timms_model():
    """The same network, as timm has it and in the wrapper of transformers."""
    model, image, target = made(wrapped_timm, 32)
    inside = model.timm_model
    wrapped = create_task('alfa', model, blocks='timm_model.layer4')(image, target)
    inside.load_state_dict(inside.state_dict())
    plain = create_task('alfa', inside, blocks='layer4')(image, target)
    torch.testing.assert_close(wrapped['loss'], plain['loss'], rtol=1e-12, atol=1e-12)
    assert isinstance(inside, type(timm.create_model('test_resnet')))
