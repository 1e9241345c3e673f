"""ALFA against the plain rewriting: full forward passes with a hook that adds delta, in float64."""

import math
from collections import OrderedDict

import pytest
import torch
from helpers.settings import CLASSES, check_step, tiny
from torch import nn

from timm_alfa import create_task
from timm_alfa.tasks.options.alfa import AlfaConfig

QUICK = dict(steps=2, step_size=0.05)

OPTIONS = (
    dict(),
    dict(steps=5, step_size=1 / 255),
    dict(steps=1),
    dict(reduction='mean', weight=0.7),
    dict(weight=2.5, blocks='2'),
    dict(blocks='1', grad='tail'),
    dict(blocks='2', bn='shared'),
    dict(blocks='1', bn='aux'),
    dict(blocks='1', bn='aux', grad='tail'),
    dict(blocks='1', norm='l2', step_size=0.5),
    dict(blocks='1', norm='l2', step_size=0.5, eps=0.7),
    dict(blocks='2', eps=0.06),
    dict(blocks='2', random_start=True),
    dict(blocks='2', random_start=True, eps=0.04),
    dict(blocks='1', random_start=True, norm='l2', eps=0.3, step_size=0.2),
    dict(blocks='2', steps=0, random_start=True),
    dict(blocks='2', unit='rms'),
    dict(blocks='1', unit='rms', norm='l2', eps=0.06),
    dict(blocks='1', unit='rms', eps=0.06, random_start=True),
    dict(blocks='2', unit='rms', random_start=True),
    dict(blocks='1', unit='rms', random_start=True, norm='l2', eps=0.3, step_size=0.2),
    dict(blocks='all', unit='rms', mode='joint'),
    dict(blocks='all', step_size=(0.01, 0.02, 0.4), weight=(0.3, 1.0, 0.0)),
    dict(blocks='all', step_size=(0.01, 0.02, 0.4), weight=(0.3, 1.0, 2.0), reduction='mean', bn='shared'),
    dict(blocks='all', step_size=(0.01, 0.0, 0.4), mode='joint', unit='rms'),
    dict(blocks='layer3.1,layer3.2.bn2', weight=(0.3, 2.0)),
    dict(blocks='all'),
    dict(blocks='all', reduction='mean'),
    dict(blocks='all', grad='tail'),
    dict(blocks='all', bn='shared'),
    dict(blocks='all', bn='aux'),
    dict(blocks='all', mode='joint'),
    dict(blocks='all', mode='joint', reduction='mean', weight=0.5),
    dict(blocks='all', mode='joint', grad='tail'),
    dict(blocks='all', mode='joint', bn='shared'),
    dict(blocks='all', mode='joint', bn='aux'),
    dict(blocks='all', mode='joint', random_start=True, eps=0.07),
    dict(blocks='1,3', random_start=True),
    dict(blocks='layer3.2.bn2'),
    dict(blocks='layer3.2.bn2', grad='tail'),
    dict(blocks='layer3.2.bn2', bn='shared'),
    dict(blocks='layer3.1,layer3.2.bn2', mode='joint'),
    dict(blocks='layer2.1.bn1,layer2.1', bn='shared'),
    dict(blocks='layer3.2.conv1,layer3.2', mode='joint', bn='shared'),
    dict(blocks='conv1'),
    dict(blocks='fc'),
)


@pytest.mark.parametrize('config', OPTIONS, ids=str)
@pytest.mark.filterwarnings('ignore::timm_alfa.errors.AlfaWarning')
def test_every_option_is_the_rewriting(config):
    check_step(*tiny(size=16), **{**QUICK, **config})


MODELS = (
    ('resnet18', 32, dict(), dict(blocks='3')),
    ('resnet18', 32, dict(), dict(blocks='layer3.0.bn2,layer4', bn='shared', mode='joint')),
    ('test_resnet', 32, dict(), dict(blocks='all')),
    ('test_efficientnet', 32, dict(), dict(blocks='2')),
    ('test_efficientnet', 32, dict(), dict(blocks='all', bn='aux')),
    ('test_vit', 32, dict(), dict(blocks='all', norm='l2', step_size=0.5)),
    ('test_vit', 32, dict(), dict(blocks='blocks.2.attn.qkv')),
    ('test_vit', 32, dict(), dict(blocks='patch_embed,norm')),
    ('test_vit', 32, dict(proj_drop_rate=0.2, attn_drop_rate=0.1), dict(blocks='1')),
    ('test_vit', 32, dict(drop_rate=0.5), dict(blocks='last', random_start=True)),
    ('test_vit', 32, dict(drop_path_rate=0.4), dict(blocks='2,3')),
    ('test_resnet', 32, dict(drop_rate=0.5, drop_path_rate=0.3), dict(blocks='all', grad='tail')),
    ('test_resnet', 32, dict(drop_rate=0.5, drop_path_rate=0.3), dict(blocks='1,3', mode='joint')),
    ('crossvit_9_240', 120, dict(), dict(blocks='1,2')),
    ('crossvit_9_240', 120, dict(), dict(blocks='last', norm='l2', step_size=0.5, eps=0.8)),
    ('crossvit_9_240', 120, dict(), dict(blocks='last', unit='rms')),
    ('pit_ti_224', 64, dict(), dict(blocks='2')),
    ('pit_ti_224', 64, dict(), dict(blocks='2,3', grad='tail', mode='joint')),
    ('poolformer_s12', 32, dict(), dict(blocks='stages.3.blocks.0.res_scale2', norm='l2', step_size=0.5)),
    ('hrnet_w18_small', 32, dict(), dict(blocks='4', steps=1)),
    ('hrnet_w18_small', 32, dict(), dict(blocks='stage4.0.branches.1', bn='shared', steps=1)),
)


@pytest.mark.parametrize(('arch', 'size', 'kwargs', 'config'), MODELS, ids=str)
@pytest.mark.filterwarnings('ignore::timm_alfa.errors.AlfaWarning')
def test_every_kind_of_model_is_the_rewriting(arch, size, kwargs, config):
    """Residual and nested features, tuples, transformers; dropout with one mask for all passes of a step.

    Poolformer's feature is what an Identity next to a residual branch returns: the very tensor that the branch reads.
    """
    check_step(*tiny(arch, size, batch=2, **kwargs), times=2 if 'test' in arch else 1, **{**QUICK, **config})


@pytest.mark.parametrize(
    'config', [dict(), dict(norm='l2'), dict(norm='l2', eps=0.1), dict(random_start=True, eps=0.1)], ids=str
)
def test_a_size_in_rms_does_not_depend_on_the_scale_of_a_feature(config):
    """A feature is made larger, and what follows divides by as much; a feature of zeros stays what it is."""
    found = {}
    for scale in (1.0, 1000.0, 0.0):
        torch.manual_seed(0)
        model = nn.Sequential(OrderedDict(first=nn.Linear(6, 8), head=nn.Linear(8, CLASSES))).double()
        with torch.no_grad():
            for parameter in model.first.parameters():
                parameter *= scale
            model.head.weight /= scale or 1
        task = create_task('alfa', model, blocks='first', unit='rms', step_size=0.05, **config)
        result = task(torch.randn(4, 6, dtype=torch.float64), torch.arange(4))
        result['loss'].backward()
        found[scale] = float(result['loss_adv']), float(result['delta_norm'])
    assert found[1000.0] == (pytest.approx(found[1.0][0], rel=1e-9), pytest.approx(1000 * found[1.0][1], rel=1e-5))
    assert found[1.0][1] > 0
    assert found[0.0][1] == 0
    assert math.isfinite(found[0.0][0])


@pytest.mark.parametrize(
    ('config', 'says'),
    [
        (dict(), []),
        (dict(weight=0), ['computed and ignored']),
        (dict(weight=(0, 1)), ['weight is 0 for some blocks']),
        (dict(step_size=(0.1, 0)), ['step_size is 0 for some blocks']),
        (dict(eps=1, gap=0.05), []),
        (dict(steps=0), ['nothing is perturbed, the clean loss is counted twice']),
        (dict(steps=0, random_start=True), []),
        (dict(steps=0, random_start=True, step_size=0), ['nothing is perturbed, the clean loss is counted twice']),
        (dict(step_size=0), ['5 steps are paid for and nothing is perturbed']),
        (dict(step_size=0, random_start=True), ['5 steps are paid for and nothing is perturbed']),
        (dict(step_size=0, random_start=True, eps=0.1), ['5 steps are paid for and perturbations are random only']),
        (dict(eps=1), ['eps=1 cannot bind']),
        (dict(eps=1, random_start=True), []),
    ],
    ids=str,
)
def test_options_without_effect_warn(config, says):
    lines = list(AlfaConfig(**config).no_effect())
    assert len(lines) == len(says)
    assert all(words in line for words, line in zip(says, lines, strict=True))
