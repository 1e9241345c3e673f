"""What timm's test suite checks of a classification model, checked of ours."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import set_scriptable
from timm.models import FeatureInfo, group_parameters
from timm.optim import param_groups_weight_decay
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import timm_alfa.models
from timm_alfa.errors import ConfigError

# Parameters with ten classes: He et al.'s table 6 says 0.27M and 0.85M; the rest are kuangliu/pytorch-cifar's.
PARAMETERS = {
    'resnet20s': 269_722,
    'resnet56s': 853_018,
    'resnet18_cifar': 11_173_962,
    'resnet34_cifar': 21_282_122,
    'resnet50_cifar': 23_520_842,
    'resnet101_cifar': 42_512_970,
    'resnet152_cifar': 58_156_618,
}
REDUCTIONS = {'resnet20s': [1, 1, 2, 4], 'resnet18_cifar': [1, 1, 2, 4, 8]}
CHANNELS = {'resnet20s': [16, 16, 32, 64], 'resnet18_cifar': [64, 64, 128, 256, 512]}

pytestmark = pytest.mark.filterwarnings('ignore:.torch.jit.script. is deprecated')
every_model = pytest.mark.parametrize('name', PARAMETERS)
one_of_each_class = pytest.mark.parametrize('name', REDUCTIONS)


def images(batch=2, size=(32, 32), channels=3):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(0))


def test_registered_under_one_module_without_weights():
    assert set(timm.list_models(module='resnet_cifar')) >= set(PARAMETERS)
    assert set(PARAMETERS) <= set(timm_alfa.models.__all__)
    with pytest.raises(RuntimeError, match='No pretrained weights'):
        timm.create_model('resnet20s', pretrained=True)


@every_model
def test_parameters_and_registered_config(name):
    with torch.device('meta'):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    cfg = timm.get_pretrained_cfg(name)
    assert (cfg.num_classes, cfg.input_size, cfg.crop_pct) == (10, (3, 32, 32), 1.0)
    assert (cfg.mean, cfg.std) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert cfg.license == 'apache-2.0'
    assert not cfg.url
    assert not cfg.hf_hub_id
    assert timm.data.resolve_data_config(model=model)['input_size'] == (3, 32, 32)
    assert f'{cfg.first_conv}.weight' in model.state_dict()
    assert f'{cfg.classifier}.weight' in model.state_dict()


@every_model
def test_shapes_with_and_without_head_and_pool(name):
    model, x = timm.create_model(name).eval(), images(1)
    with torch.inference_mode():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        assert features.shape == (1, model.num_features, *model.default_cfg['pool_size'])
        assert pooled.shape == (1, model.head_hidden_size)
        logits = model(x)
        assert logits.shape == (1, 10)
        assert logits.isfinite().all()
        assert torch.equal(logits, model.get_classifier()(pooled))
        model.reset_classifier(0)
        assert model.num_classes == 0
        assert torch.equal(model(x), pooled)
        model.reset_classifier(0, '')
        assert torch.equal(model(x), features)


@one_of_each_class
def test_head_and_pool_by_argument(name):
    x = images(1, (16, 16))
    size = 16 // REDUCTIONS[name][-1]
    assert timm.create_model(name, num_classes=0, global_pool='').eval()(x).shape[2:] == (size, size)
    assert timm.create_model(name, num_classes=0).eval()(x).shape == (1, CHANNELS[name][-1])
    both = timm.create_model(name, num_classes=7, global_pool='catavgmax').eval()
    assert both.head_hidden_size == 2 * both.num_features
    assert both(x).shape == (1, 7)
    both.reset_classifier(5, 'avg')
    assert both.num_classes == 5
    assert both(x).shape == (1, 5)
    assert both.get_classifier(name_only=True) == 'fc'
    assert both.get_classifier() is both.fc


@one_of_each_class
def test_every_parameter_gets_a_gradient(name):
    model = timm.create_model(name, num_classes=42, in_chans=1).train()
    output = model(images(2, (16, 24), channels=1))
    assert output.shape == (2, 42)
    output.square().mean().backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]


@one_of_each_class
def test_checkpointing_changes_neither_outputs_nor_gradients(name):
    x = images(2, (16, 16))
    plain = timm.create_model(name).train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        model(x).square().sum().backward()
    for (key, mine), theirs in zip(saving.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=key)
    saving.load_state_dict(plain.state_dict())  # the recomputed forward has moved the running statistics once more
    plain.eval(), saving.eval()
    torch.testing.assert_close(saving(x), plain(x))
    torch.testing.assert_close(saving.forward_intermediates(x), plain.forward_intermediates(x))


@one_of_each_class
def test_feature_info_is_what_the_features_are(name):
    model, x = timm.create_model(name).eval(), images(1, (24, 40))
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    assert info.reduction() == REDUCTIONS[name]
    assert info.channels() == CHANNELS[name]
    assert info.module_name() == ['act1'] + [f'layer{n}' for n in range(1, len(info))]
    with torch.inference_mode():
        final, features = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        assert torch.equal(final, features[-1])
    for feature, channels, reduction in zip(features, info.channels(), info.reduction(), strict=True):
        assert feature.shape == (1, channels, 24 // reduction, 40 // reduction)


@one_of_each_class
def test_intermediates_by_index_and_stopping_early(name):
    model, x = timm.create_model(name).eval(), images(1, (16, 16))
    ran = []
    for stage in ('layer1', 'layer2', 'layer3'):
        getattr(model, stage).register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    with torch.inference_mode():
        features = model.forward_intermediates(x, intermediates_only=True)
        ran.clear()
        early = model.forward_intermediates(x, indices=[0, 2], stop_early=True, intermediates_only=True)
        assert ran == ['layer1', 'layer2']
        assert [torch.equal(a, features[i]) for a, i in zip(early, (0, 2), strict=True)] == [True, True]
        last = model.forward_intermediates(x, indices=2, intermediates_only=True)
        assert [torch.equal(a, b) for a, b in zip(last, features[-2:], strict=True)] == [True, True]


@one_of_each_class
@pytest.mark.parametrize('feature_cls', ['list', 'getter', 'hook', 'fx'])
def test_features_only(name, feature_cls):
    torch.manual_seed(0)
    whole, x = timm.create_model(name).eval(), images(1, (16, 24))
    expected = whole.forward_intermediates(x, intermediates_only=True)
    for wanted in (tuple(range(len(expected))), (1, 2)):
        arguments = {} if len(wanted) > 2 else {'out_indices': wanted}  # all of them is the default
        torch.manual_seed(0)
        model = timm.create_model(name, features_only=True, feature_cls=feature_cls, **arguments).eval()
        assert model.feature_info.reduction() == [REDUCTIONS[name][i] for i in wanted]
        for feature, i in zip(model(x), wanted, strict=True):
            torch.testing.assert_close(feature, expected[i])


@one_of_each_class
def test_pruning_keeps_only_what_a_feature_needs(name):
    model, x = timm.create_model(name).eval(), images(1, (16, 16))
    expected = model.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    assert model.prune_intermediate_layers([0, 1]) == [0, 1]
    assert not any(key.startswith(('layer2', 'layer3', 'layer4', 'fc')) for key in model.state_dict())
    assert model.num_features == CHANNELS[name][1]
    assert torch.equal(model(x), expected[1])
    whole = timm.create_model(name)
    whole.prune_intermediate_layers(1, prune_head=False)
    assert whole.num_classes == 10
    assert whole.num_features == CHANNELS[name][-1]


@one_of_each_class
def test_parameter_groups_cover_the_model_in_order(name):
    model = timm.create_model(name)
    layers = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert set(layers) == set(dict(model.named_parameters()))
    assert layers['conv1.weight'] == layers['bn1.bias'] == 0
    assert 0 < layers['layer1.0.bn1.weight'] < layers['layer2.0.bn1.bias']
    assert layers['fc.weight'] == max(layers.values())
    (decayed,) = (group for group in param_groups_weight_decay(model, 5e-4) if group['weight_decay'])
    assert all(parameter.ndim > 1 for parameter in decayed['params'])


@one_of_each_class
def test_weights_survive_a_checkpoint_and_a_hub_folder(name, tmp_path: Path):
    torch.manual_seed(1)
    model, x = timm.create_model(name, num_classes=3).eval(), images(1, (16, 16))
    state = {f'module.{key}': value for key, value in model.state_dict().items()}  # as DDP names them
    torch.save({'state_dict': state}, tmp_path / 'a.pth')
    again = timm.create_model(name, num_classes=3, checkpoint_path=str(tmp_path / 'a.pth')).eval()
    assert torch.equal(again(x), model(x))
    timm.models.save_for_hf(model, tmp_path / 'hub', safe_serialization=True)
    hub = f'local-dir:{tmp_path / "hub"}'
    assert torch.equal(timm.create_model(hub, pretrained=True).eval()(x), model(x))
    adapted = timm.create_model(hub, pretrained=True, in_chans=1, num_classes=5)
    assert torch.equal(adapted.conv1.weight, model.conv1.weight.sum(1, keepdim=True))
    assert torch.equal(adapted.layer3[0].conv1.weight, model.layer3[0].conv1.weight)
    assert adapted.fc.out_features == 5


def test_config_overlay():
    model = timm.create_model('resnet56s', pretrained_cfg_overlay={'mean': (0.5, 0.5, 0.5), 'num_classes': 4})
    assert model.pretrained_cfg['mean'] == (0.5, 0.5, 0.5)
    assert model.pretrained_cfg['architecture'] == 'resnet56s'
    assert model.num_classes == 4


@one_of_each_class
def test_torchscript_fx_and_both(name):
    with set_scriptable(True):
        model = timm.create_model(name).eval()
    x = images(1, (16, 16))
    with torch.inference_mode():
        expected = model(x)
        torch.testing.assert_close(torch.jit.script(model)(x), expected)
        _, nodes = get_graph_node_names(model)
        traced = create_feature_extractor(model, return_nodes=[nodes[-1]])
        assert torch.equal(*traced(x).values(), expected)
        (scripted,) = torch.jit.script(traced)(x).values()
        torch.testing.assert_close(scripted, expected)


@one_of_each_class
def test_backward_through_an_fx_trace_and_features_scripted(name):
    model = timm.create_model(name, num_classes=42).train()
    torch.fx.symbolic_trace(model)(images(2, (16, 16))).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with set_scriptable(True):
        features = timm.create_model(name, features_only=True, feature_cfg={'feature_cls': 'fx'}).eval()
    with torch.inference_mode():
        assert len(torch.jit.script(features)(images(1, (16, 16)))) == len(REDUCTIONS[name])


def test_small_stem_is_timms_resnet_but_for_its_stem():
    ours, theirs = timm.create_model('resnet18_cifar').eval(), timm.create_model('resnet18', num_classes=10).eval()
    state = {key: value for key, value in ours.state_dict().items() if key != 'conv1.weight'}
    assert theirs.load_state_dict(state, strict=False).missing_keys == ['conv1.weight']
    theirs.conv1, theirs.maxpool = ours.conv1, torch.nn.Identity()
    x = images(2, (16, 16))
    assert torch.equal(ours(x), theirs(x))
    std = ours.conv1.weight.std().item()
    assert ours.conv1.weight.shape == (64, 3, 3, 3)
    assert std == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)


def test_small_stem_refuses_the_stem_it_replaces():
    with pytest.raises(ConfigError, match="stem_type, stem_width: this network's stem is fixed"):
        timm.create_model('resnet18_cifar', stem_type='deep', stem_width=32)


def test_small_stem_dilates_below_stride_eight_and_takes_a_dtype():
    model = timm.create_model('resnet18_cifar', output_stride=4, dtype=torch.float64).eval()
    assert model.conv1.weight.dtype == torch.float64
    assert model.forward_features(images(1, (16, 16)).double()).shape == (1, 512, 4, 4)
    assert [row['reduction'] for row in model.feature_info] == [1, 1, 2, 4, 4]
