"""What the gate lets through: constructor arguments of every architecture, as plain data."""

import pytest
import timm
import torch
import yaml

from timm_alfa.errors import ConfigError
from timm_alfa.models.arguments import FACTORY_OPTIONS, argument_errors, constructor_arguments
from timm_alfa.models.factory import create_model

USUAL = dict(num_classes=7, in_chans=4, drop_rate=0.1)
# Of each family an architecture, and further arguments of its constructor.
FAMILIES = {
    'beit_base_patch16_224': dict(drop_path_rate=0.1, img_size=256),
    'botnet26t_256': dict(drop_path_rate=0.1),
    'cait_xxs24_224': dict(drop_path_rate=0.1),
    'coat_tiny': dict(drop_path_rate=0.1),
    'coatnet_0_224': dict(transformer_attn_bias=False),
    'convmixer_768_32': dict(global_pool='avg'),
    'convnext_tiny': dict(drop_path_rate=0.1, ls_init_value=1e-5),
    'convit_tiny': dict(drop_path_rate=0.1),
    'crossvit_9_240': dict(drop_path_rate=0.1),
    'cspresnet50': dict(drop_path_rate=0.1),
    'davit_tiny': dict(drop_path_rate=0.1),
    'deit_tiny_distilled_patch16_224': dict(drop_path_rate=0.1, img_size=256),
    'densenet121': dict(growth_rate=16),
    'dla34': dict(global_pool='avg'),
    'dpn68': dict(global_pool='max'),
    'edgenext_small': dict(drop_path_rate=0.1),
    'efficientformer_l1': dict(drop_path_rate=0.1),
    'efficientnet_b0': dict(drop_path_rate=0.1, act_layer='relu', bn_eps=1e-3),
    'eva02_tiny_patch14_224': dict(img_size=280, qkv_fused=False),
    'focalnet_tiny_srf': dict(drop_path_rate=0.1),
    'ghostnet_100': dict(global_pool='avg'),
    'hrnet_w18_small': dict(head_conv_bias=False),
    'inception_v3': dict(aux_logits=False),
    'levit_128s': dict(drop_path_rate=0.1),
    'maxvit_tiny_rw_224': dict(img_size=256, drop_path_rate=0.1),
    'mixer_s32_224': dict(drop_path_rate=0.1),
    'mobilenetv3_small_100': dict(drop_path_rate=0.1),
    'mobilevit_s': dict(drop_path_rate=0.1),
    'mvitv2_tiny': dict(drop_path_rate=0.1),
    'nfnet_f0': dict(drop_path_rate=0.1),
    'pit_ti_224': dict(),
    'poolformer_s12': dict(drop_path_rate=0.1),
    'pvt_v2_b0': dict(drop_path_rate=0.1),
    'regnetx_002': dict(drop_path_rate=0.1, zero_init_last=False),
    'res2net50_26w_4s': dict(drop_path_rate=0.1),
    'resnet18_cifar': dict(drop_path_rate=0.1),
    'resnet20s': dict(zero_init_last=False),
    'resnet50': dict(drop_path_rate=0.1, global_pool='avgmax', base_width=32, block_args={'attn_layer': 'se'}),
    'resnetv2_50': dict(drop_path_rate=0.1),
    'swin_tiny_patch4_window7_224': dict(img_size=256, window_size=8),
    'swinv2_tiny_window8_256': dict(pretrained_window_sizes=[8, 8, 8, 8]),
    'tnt_s_patch16_224': dict(drop_path_rate=0.1),
    'tresnet_m': dict(drop_path_rate=0.1),
    'twins_svt_small': dict(drop_path_rate=0.1),
    'vgg11': dict(mlp_ratio=0.5),
    'vit_base_patch16_224': dict(img_size=256, drop_path_rate=0.1, depth=2, qk_norm=True),
    'volo_d1_224': dict(drop_path_rate=0.1),
    'xception41': dict(drop_path_rate=0.1),
    'xcit_nano_12_p16_224': dict(drop_path_rate=0.1),
}


@pytest.mark.parametrize('name', FAMILIES)
def test_constructor_arguments_of_a_family(name):
    with torch.device('meta'):
        assert create_model(name, {**USUAL, **FAMILIES[name]}).num_classes == 7


def test_every_architecture_shows_its_arguments():
    for name in timm.list_models():
        assert {'num_classes', 'in_chans', 'drop_rate', 'drop_path_rate', 'img_size'} <= constructor_arguments(name)
        assert not constructor_arguments(name) & FACTORY_OPTIONS


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'pretrained': True}, 'Use --pretrained'),
        ({'cache_dir': 'x'}, 'Set HF_HUB_CACHE'),
        ({'checkpoint_path': 'x'}, '--initial-checkpoint'),
        ({'scriptable': True}, 'Leave it out'),
        ({'feature_cfg': {}}, 'Leave it out'),
        ({'pretrained_filter_fn': 'x'}, 'Leave it out'),
        ({'base_widht': 3}, "Did you mean 'base_width'?"),
        ({'block_args': {'cache_dir': 'x'}}, "which holds 'cache_dir'"),
        ({'act_layer': torch.nn.ReLU}, 'which is a type'),
        ({'layers': list(range(5000))}, 'which is too large'),
        ({'act_layer': 'x' * 5000}, 'which is too long'),
    ],
)
def test_what_is_refused_and_what_to_use(arguments, said):
    found = list(argument_errors(arguments, '--model-kwargs', 'resnet50'))
    assert len(found) == 1 and found[0].startswith(f"--model-kwargs has '{next(iter(arguments))}'") and said in found[0]


def test_yaml_that_unfolds_without_end():
    bomb = 'a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0]\n' + ''.join(
        f'{new}: &{new} [{", ".join([f"*{old}"] * 9)}]\n' for old, new in zip('abcd', 'bcde', strict=True)
    )
    wide, ring = yaml.safe_load(bomb), yaml.safe_load('layers: &x [*x]')
    for arguments in ({'layers': wide['e']}, ring):
        assert 'too large' in next(argument_errors(arguments, 'x', 'resnet50'))


def test_a_name_that_is_no_activation_of_timm_is_an_error():
    with pytest.raises((KeyError, ConfigError)):
        create_model('efficientnet_b0', {'act_layer': 'torch.nn.ReLU'})
