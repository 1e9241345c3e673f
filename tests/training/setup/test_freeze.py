"""Frozen stages and linear probes: what is frozen stays, bit for bit, and what follows is trained as before."""

import copy

import pytest
import timm
import torch
from helpers.settings import check_step, tiny
from torch import nn

from timm_alfa.errors import AlfaWarning, ConfigError
from timm_alfa.training.options.config import ModelConfig
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.setup.freeze import freeze_parts
from timm_alfa.training.train import train

FIRST_STAGES = {
    'resnet20s': ('conv1.', 'bn1.', 'layer1.', 'layer2.'),
    'test_vit': ('cls_token', 'pos_embed', 'patch_embed.', 'norm_pre.', 'blocks.0.', 'blocks.1.'),
    'test_convnext': ('stem.', 'stages.0.', 'stages.1.'),
    'test_efficientnet': ('conv_stem.', 'bn1.', 'blocks.0.', 'blocks.1.'),
}


@pytest.mark.parametrize('name', FIRST_STAGES)
def test_a_stage_freezes_everything_up_to_it(name):
    model = timm.create_model(name)
    freeze_parts(model, ModelConfig(freeze='2'))
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {key for key, _ in model.named_parameters() if key.startswith(FIRST_STAGES[name])}
    norms = {key for key, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert not any(key.startswith(FIRST_STAGES[name]) for key in norms)


def test_a_stage_that_ends_in_a_pool_is_frozen_up_to_it():
    with torch.device('meta'):
        model = timm.create_model('vgg11')
    freeze_parts(model, ModelConfig(freeze='2'))
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    first = ('features.0.', 'features.3.')  # each followed by a ReLU and a pool
    assert trained == {key for key, _ in model.named_parameters() if not key.startswith(first)}


class VectorNorms(nn.Module):
    """Batch norms of vectors before the classifier and in it, as in LeViT."""

    def __init__(self):
        super().__init__()
        self.before = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

    def get_classifier(self):
        return self.head

    def forward(self, x):
        return self.head(self.before(x))


def test_norms_of_vectors_are_frozen_and_those_of_the_classifier_are_not():
    model = VectorNorms()
    freeze_parts(model, ModelConfig(linear_probe=True))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(8, 4) + 3
    model.train()(x)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {'head.0.running_mean', 'head.0.running_var', 'head.0.num_batches_tracked'}
    torch.testing.assert_close(model.before(x), copy.deepcopy(model).eval().before(x))
    assert {key for key, parameter in model.named_parameters() if parameter.requires_grad} == {
        key for key in before if key.startswith('head.') and key.endswith(('weight', 'bias'))
    }


@pytest.mark.parametrize('name', ['resnet20s', 'test_vit', 'test_convnext'])
def test_a_linear_probe_trains_the_classifier_only(name):
    model = timm.create_model(name, num_classes=3)
    freeze_parts(model, ModelConfig(linear_probe=True))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    head = list(model.get_classifier().parameters())
    assert len(trained) == len(head) and all(a is b for a, b in zip(trained, head, strict=True))


@pytest.mark.parametrize(
    ('options', 'blocks'),
    [(dict(freeze='layer2.0'), '1,3'), (dict(freeze='2'), 'last'), (dict(linear_probe=True), 'last')],
)
def test_a_step_is_that_of_the_plain_rewriting(options, blocks):
    """Also where the perturbed feature itself comes from frozen weights: its gradient needs none of them."""
    model, input, target = tiny(size=16)
    freeze_parts(model, ModelConfig(**options))
    check_step(model, input, target, blocks=blocks, steps=2, step_size=0.01)


def test_a_run_leaves_frozen_weights_and_statistics_alone(runs):
    argv = ('--freeze', '2', '--task', 'alfa', '--epochs', '1')
    with pytest.warns(AlfaWarning, match='--freeze freezes random weights: add --pretrained'):
        run = runs.prepare(*argv)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    in_groups = {id(p) for group in run.optimizer.param_groups for p in group['params']}
    assert in_groups == {id(p) for p in run.model.parameters() if p.requires_grad}

    train(run)
    frozen = ('conv1.', 'bn1.', 'layer1.', 'layer2.')
    weights = runs.weights('run', 'model_best.safetensors')
    for key, value in weights.items():
        assert torch.equal(value, before[key]) == key.startswith(frozen), key
    reloaded = timm.create_model(f'local-dir:{runs.output / "run"}', pretrained=True).state_dict()
    assert all(torch.equal(reloaded[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('resnet20s', dict(freeze='7'), "--freeze: stage 7 of block spec '7' does not exist"),
        ('resnet20s', dict(freeze='fc'), '--freeze fc leaves nothing to train: name an earlier stage'),
    ],
)
def test_what_cannot_be_frozen_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        freeze_parts(timm.create_model(name), ModelConfig(**options))


def test_a_model_without_a_classifier_has_no_probe():
    with pytest.raises(
        ConfigError, match=r"--linear-probe: model 'resnet20s' has no classifier to train. Use --freeze"
    ):
        freeze_parts(timm.create_model('resnet20s', num_classes=0), ModelConfig(linear_probe=True))


def test_both_at_once_are_refused():
    with pytest.raises(ConfigError, match='--freeze and --linear-probe cannot be combined'):
        parse_args(['--freeze', '1', '--linear-probe'])


def test_an_architecture_without_weights_names_the_tags_that_have():
    with pytest.raises(ConfigError) as caught:
        parse_args(['--model', 'resnet20s', '--pretrained'])
    (line,) = caught.value.errors
    assert line.startswith("--pretrained: 'resnet20s' has no weights of its own: use --model resnet20s.alfa_c10 or ")
    with pytest.raises(ConfigError, match="'resnet18_cifar' has no weights of its own: leave --pretrained out"):
        parse_args(['--model', 'resnet18_cifar', '--pretrained'])
    assert parse_args(['--model', 'resnet20s.alfa_c10', '--pretrained']).model.pretrained
    assert parse_args(['--model', 'resnet18', '--pretrained']).model.pretrained
