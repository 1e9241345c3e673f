"""The one place where a model is called and a loss is made: any model and any loss can take it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.settings import tiny
from torch import nn

from timm_alfa import create_task
from timm_alfa.errors import ConfigError
from timm_alfa.tasks.alfa import AlfaConfig, AlfaTask
from timm_alfa.tasks.l_alfa import LAlfaConfig, LAlfaTask
from timm_alfa.tasks.noise import NoiseConfig, NoiseTask
from timm_alfa.tasks.objective import Objective, classifier_objective
from timm_alfa.tasks.standard import StandardConfig, StandardTask


class Heads(nn.Module):
    """A network with two outputs, in a dict."""

    def __init__(self, model):
        super().__init__()
        self.body, self.second = model, nn.Linear(5, 5).double()

    def forward(self, x):
        logits = self.body(x)
        return {'first': logits, 'second': self.second(logits)}


def call(model, weights, image, labels):
    return model(image * 2)


def loss(output, weights, image, labels):
    losses = F.cross_entropy(output['first'], labels['class'], reduction='none')
    return (weights * losses).mean() + output['second'].square().mean()


@pytest.mark.parametrize(
    ('task', 'config'),
    [
        (StandardTask, StandardConfig()),
        (AlfaTask, AlfaConfig(blocks='body.layer2', steps=2, step_size=0.05)),
        (AlfaTask, AlfaConfig(blocks='body.layer1,body.layer3', steps=2, step_size=0.05)),
        (LAlfaTask, LAlfaConfig(blocks='body.layer1,body.layer3', steps=2, step_size=0.05)),
        (NoiseTask, NoiseConfig(blocks='body.layer2', std=0.1)),
    ],
    ids=str,
)
def test_any_call_and_loss(task, config):
    """Whatever a batch is, the step is that of a classifier whose criterion and model hide the difference."""
    model, image, target = tiny(size=16)
    torch.manual_seed(0)
    weights = torch.rand(4, dtype=torch.float64)
    heads = Heads(model)

    class Doubled(Heads):
        def forward(self, x):
            output = super().forward(x * 2)
            return torch.cat([output['first'], output['second']], 1)

    def criterion(output, target):
        return loss({'first': output[:, :5], 'second': output[:, 5:]}, weights, None, {'class': target})

    other = Doubled(copy.deepcopy(model))
    other.load_state_dict(heads.state_dict())
    general = task(heads, config=config, objective=Objective(call, loss))
    classifier = task(other, criterion, config=config)
    for step in range(2):
        torch.manual_seed(step)
        found = general(weights, image, {'class': target})
        torch.manual_seed(step)
        want = classifier(image, target)
        found['loss'].backward()
        want['loss'].backward()
        assert torch.equal(found['loss'], want['loss'])
        assert set(found['output']) == {'first', 'second'}
    for (name, p), q in zip(heads.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f'{name}: {m}')


def test_a_copied_task_has_a_copied_criterion():
    task = create_task('alfa', tiny(size=16)[0], nn.CrossEntropyLoss())
    other = copy.deepcopy(task)
    assert other.objective.modules == (other.criterion,)
    assert other.criterion is not task.criterion
    assert other.objective.loss.args == (other.criterion,)


def test_the_loss_of_a_classifier_takes_logits_alone():
    objective = classifier_objective(F.cross_entropy)
    assert objective.modules == ()
    with pytest.raises(ConfigError, match='returns a list and not its logits'):
        objective.loss([torch.zeros(1, 2)], None, torch.tensor([0]))
