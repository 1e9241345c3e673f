"""The one place where a model is called and a loss is made: any model and any loss can take it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.any_model import check_any_step
from helpers.settings import tiny
from torch import nn

from timm_alfa import create_task
from timm_alfa.errors import BlockError, ConfigError
from timm_alfa.tasks.objective import classifier_objective


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
    ('name', 'config'),
    [
        ('standard', dict(weight=2.0)),
        ('alfa', dict(blocks='body.layer2', steps=2, step_size=0.05)),
        ('alfa', dict(blocks='body.layer1,body.layer3', steps=2, step_size=0.05)),
        ('l_alfa', dict(blocks='body.layer1,body.layer3', steps=2, step_size=0.05)),
        ('noise', dict(blocks='body.layer2', std=0.1)),
        ('sam', dict()),
    ],
)
def test_any_call_and_loss(name, config):
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
    general = create_task(name, heads, call=call, loss=loss, **config)
    classifier = create_task(name, other, criterion, **config)
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


class Answer:
    """What Hugging Face's models return."""

    def __init__(self, logits, loss=None):
        self.logits, self.loss = logits, loss


class HuggingFace(nn.Module):
    """A classifier as Hugging Face has them: it returns an object, and computes the loss if it gets labels."""

    def __init__(self, model):
        super().__init__()
        self.body = model

    def forward(self, pixel_values, labels=None):
        logits = self.body(pixel_values)
        return Answer(logits, None if labels is None else F.cross_entropy(logits, labels))


@pytest.mark.parametrize(
    ('given', 'batch'),
    [
        (dict(), lambda x, y: (x, y)),
        (dict(loss=lambda answer, x, y: F.cross_entropy(answer.logits, y)), lambda x, y: (x, y)),
        (dict(loss=lambda answer, x, y: F.cross_entropy(answer.logits, y)[None]), lambda x, y: (x, y)),
        (
            dict(call=lambda model, batch: model(**batch)),
            lambda x, y: (dict(pixel_values=x, labels=y),),
        ),
        (
            dict(call=lambda model, batch: model(**batch).loss),
            lambda x, y: (dict(pixel_values=x, labels=y),),
        ),
        (
            dict(call=lambda model, batch, labels: model(**batch), criterion=nn.CrossEntropyLoss()),
            lambda x, y: (dict(pixel_values=x), y),
        ),
    ],
    ids=['neither', 'loss', 'loss of shape (1,)', 'call', 'call that returns the loss', 'call and criterion'],
)
def test_logits_and_losses_in_outputs(given, batch):
    model, image, target = tiny(size=16)
    want = create_task('alfa', model, blocks='layer2', steps=2, step_size=0.05)(image, target)
    task = create_task('alfa', HuggingFace(model), blocks='body.layer2', steps=2, step_size=0.05, **given)
    found = task(*batch(image, target))
    assert torch.equal(found['loss'].reshape(()), want['loss'])
    assert given or torch.equal(found['output'], want['output'])  # for timm's loop: logits


@pytest.mark.parametrize('name', ['moex', 'advprop', 'adv_train', 'isda'])
@pytest.mark.parametrize('given', [dict(call=call), dict(loss=loss), dict(call=call, loss=loss)], ids=list)
def test_methods_for_classifiers_say_why_they_take_none(name, given):
    words = ' and no '.join(given)
    with pytest.raises(ConfigError, match=f"task '{name}' trains classifiers only and takes no {words}: it .*images"):
        create_task(name, tiny(size=16)[0], **given)


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (dict(call='forward'), r"call is 'forward': pass a function, call\(model, \*batch\)"),
        (dict(loss=0.1), r'loss is 0.1: pass a function, loss\(output, \*batch\)'),
        (dict(loss=loss, criterion=F.cross_entropy), 'a criterion or loss, not both'),
        (dict(loss=loss, criterion_kwargs=dict(smoothing=0.1)), 'a criterion or loss, not both'),
    ],
)
def test_what_is_not_an_objective_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        create_task('alfa', tiny(size=16)[0], **given)


@pytest.mark.parametrize('name', ['standard', 'alfa'])
@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (dict(loss=lambda output, *batch: output), r'the loss is a tensor of shape \[4, 5\]: it has to be one number'),
        (dict(loss=lambda output, *batch: {'a': output.mean()}), 'the loss is a dict'),
        (dict(loss=lambda output, *batch: 0.5), 'the loss is a float'),
        (dict(loss=lambda output, *batch: output.argmax()), r'the loss is a tensor of shape \[\]'),
        (dict(call=lambda model, x, y: {'out': model(x)}), 'call returns a dict without a loss.*pass loss='),
        (
            dict(call=lambda model, x, y: model(x)),
            r'call returns a tensor of shape \[4, 5\] without a loss.*pass loss=',
        ),
        (
            dict(call=lambda model, x, y: [model(x)], criterion=F.cross_entropy),
            'call returns a list, in which the criterion finds no logits',
        ),
    ],
)
def test_wrong_losses_are_errors(name, given, words):
    model, image, target = tiny(size=16)
    with pytest.raises(ConfigError, match=words):
        create_task(name, model, **given)(image, target)


def test_a_loss_with_parameters_is_part_of_the_task():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, output, x, y):
            return F.cross_entropy(output, y) * self.log_scale.exp()

    model, image, target = tiny(size=16)
    loss = Weighted()
    grads = []
    for given in (loss, loss.forward):
        task = create_task('alfa', model, loss=given, blocks='layer1,layer3', steps=1)
        loss.zero_grad()
        result = task(image, target)
        result['loss'].backward()
        torch.testing.assert_close(loss.log_scale.grad, result['loss'].detach())
        grads.append(loss.log_scale.grad)
    assert torch.equal(*grads)
    assert 'criterion.log_scale' in create_task('alfa', model, loss=loss).state_dict()


def test_only_classifiers_are_evaluated_as_classifiers():
    model = tiny(size=16)[0]
    assert create_task('alfa', model).create_evaluator() is not None
    for given in (dict(call=call), dict(loss=loss), dict(call=call, loss=loss)):
        task = create_task('alfa', model, **given)
        with pytest.raises(ConfigError, match='evaluate task.get_eval_model'):
            task.create_evaluator()


def test_a_model_that_names_no_classifier_has_all_its_parameters_clipped():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    task = create_task('alfa', model, loss=loss)
    assert task.clip_parameters(exclude_head=True) == list(model.parameters())


def sampled(output, image, target):
    """A loss over classes that are drawn anew in each call."""
    return F.cross_entropy(output * torch.rand_like(output), target)


@pytest.mark.parametrize('blocks', ['layer2', 'layer1,layer3'])
def test_a_loss_that_draws_draws_alike_in_all_passes(blocks):
    model, image, target = tiny(size=16)
    check_any_step(model, (image, target), blocks, loss=sampled, steps=2, step_size=0.02)


class DrawsBetween(nn.Module):
    """Draws random numbers itself, before and after the module of its feature."""

    def __init__(self, model):
        super().__init__()
        self.body, self.second = model, nn.Linear(5, 5).double()

    def forward(self, x):
        x = self.body(x * torch.rand_like(x))
        kept = torch.rand(len(x)).argsort()[:2]
        return self.second(x * torch.rand_like(x))[kept].mean(0, keepdim=True) + x


def test_what_a_model_draws_around_a_feature_is_drawn_alike_in_all_passes():
    model, image, target = tiny(size=16)
    for blocks in ('body', 'body.layer2', 'second'):
        check_any_step(
            DrawsBetween(copy.deepcopy(model)),
            (image, target),
            blocks,
            loss=lambda output, image, target: F.cross_entropy(output, target),
            steps=2,
            step_size=0.02,
        )


@pytest.mark.parametrize(
    'loss',
    [
        lambda output, image, target: F.cross_entropy(output.mul_(2), target),
        lambda output, image, target: F.cross_entropy(output, target.clamp_(0)),
    ],
    ids=['output', 'batch'],
)
def test_a_loss_that_writes_into_its_arguments_is_refused(loss):
    model, image, target = tiny(size=16)
    task = create_task('alfa', model, loss=loss, blocks='fc', steps=1)
    with pytest.raises(ConfigError, match='the loss writes into its arguments in place'):
        task(image, target)


def test_a_call_that_does_not_run_the_model_is_refused():
    model, image, target = tiny(size=16)
    task = create_task('alfa', model, F.cross_entropy, call=lambda model, x, y: model.forward(x).detach(), steps=1)
    with pytest.raises(BlockError, match=r'a call has to run the model itself, model\(\.\.\.\), once'):
        task(image, target)
