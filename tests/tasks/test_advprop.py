"""AdvProp against its algorithm: three kinds of full passes, the auxiliary norms put in as modules."""

import copy
import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.rewriting import norm_names, swapped
from helpers.settings import assert_same_buffers, assert_same_grads, grads_of, move_norms_apart, state_of, tiny
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from timm_alfa import create_task
from timm_alfa.errors import AlfaWarning, ConfigError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
QUICK = dict(steps=3, step_size=0.02, eps=0.05, mean=MEAN, std=STD)


def images_of(input):
    """Images [0, 1] and as the network takes them."""
    pixels = torch.sigmoid(input)
    mean, std = (pixels.new_tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    return pixels, lambda x: (x - mean) / std


def plain_search(forward, pixels, normalize, target, steps, step_size, eps, random_start):
    start = torch.empty_like(pixels).uniform_(-eps, eps) if random_start else torch.zeros_like(pixels)
    at = (pixels + start).clamp(0, 1)
    for _ in range(steps):
        at = at.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(forward(normalize(at)), target), at)
        at = torch.maximum(torch.minimum(at + step_size * grad.sign(), pixels + eps), pixels - eps).clamp(0, 1)
    return at.detach()


def plain_advprop(model, aux, input, target, random_start, steps, step_size, eps):
    """Algorithm 1 of the paper: gradients by name, logits, losses, adversarial pixels."""
    pixels, normalize = images_of(input)
    output = model(normalize(pixels))
    loss_clean = F.cross_entropy(output, target)

    def through_aux(x):
        with swapped(model, aux):
            return model(x)

    before = {n: copy.deepcopy(m.state_dict()) for n, m in aux.items()}
    found = plain_search(through_aux, pixels, normalize, target, steps, step_size, eps, random_start)
    for name, module in aux.items():
        module.load_state_dict(before[name])
    loss_adv = F.cross_entropy(through_aux(normalize(found)), target)
    (loss_clean + loss_adv).backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    grads.update({f'aux:{n}.{k}': p.grad for n, m in aux.items() for k, p in m.named_parameters()})
    norm = (found - pixels).flatten(1).norm(dim=1).mean()
    return grads, output.detach(), loss_clean.detach(), loss_adv.detach(), norm


@pytest.mark.parametrize('arch', ['resnet20s', 'test_efficientnet'])
@pytest.mark.parametrize('random_start', [True, False])
def test_two_steps_are_the_algorithm(arch, random_start):
    model, input, target = tiny(arch, size=32 if arch == 'test_efficientnet' else 16)
    other = copy.deepcopy(model)
    task = create_task('advprop', model, random_start=random_start, **QUICK)
    move_norms_apart(task)
    aux = state_of(task, norm_names(other))
    settings = {k: QUICK[k] for k in ('steps', 'step_size', 'eps')}
    for step in range(2):
        other.zero_grad()
        for module in aux.values():
            module.zero_grad()
        torch.manual_seed(step)
        grads, output, clean, adv, norm = plain_advprop(other, aux, input, target, random_start, **settings)
        torch.manual_seed(step)
        task.zero_grad()
        pixels, normalize = images_of(input)
        result = task(normalize(pixels), target)
        result['loss'].backward()
        torch.testing.assert_close(result['output'].detach(), output)
        torch.testing.assert_close(result['loss_clean'], clean)
        torch.testing.assert_close(result['loss_adv'], adv)
        torch.testing.assert_close(result['loss'].detach(), clean + adv)
        torch.testing.assert_close(result['delta_norm'].double(), norm, rtol=1e-6, atol=0)
        assert_same_grads(grads_of(task), grads)
        assert_same_buffers(model, dict(other.named_buffers()))
        for name, module in aux.items():
            assert_same_buffers(task.extras.aux[name.replace('.', '/')], dict(module.named_buffers()))


def test_main_statistics_come_from_clean_images_alone():
    model, input, target = tiny(size=16)
    other = copy.deepcopy(model)
    task = create_task('advprop', model, **QUICK)
    for _ in range(3):
        task(input, target)
        other(input)
    for (name, a), b in zip(model.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), name
    for key, module in task.extras.aux.items():
        assert module.num_batches_tracked == 3
        assert not torch.equal(module.running_mean, model.get_submodule(key.replace('/', '.')).running_mean)


def test_auxiliary_norms_are_trained_but_are_not_in_the_model():
    model = tiny(size=16)[0]
    keys = list(model.state_dict())
    task = create_task('advprop', model)
    (group,) = task.extra_param_groups()
    assert group['weight_decay'] == 0
    assert len(group['params']) == 2 * len(norm_names(model))
    own = {id(p) for p in model.parameters()}
    assert not any(id(p) in own for p in group['params'])
    assert list(task.get_eval_model().state_dict()) == list(task.get_checkpoint_state()['state_dict']) == keys
    assert all(key.startswith('aux.') for key in task.get_task_state()['own'])


def test_an_ema_is_plain_too():
    model, input, target = tiny(size=16)
    task = create_task('advprop', model, **QUICK)
    task.setup_ema(decay=0.5)
    task(input, target)['loss'].backward()
    task.update_ema()
    assert list(task.get_eval_model(ema=True).state_dict()) == list(model.state_dict())


def test_without_batch_norm_it_works_and_says_so():
    model = timm.create_model('test_vit', num_classes=5, img_size=32)
    with pytest.warns(AlfaWarning, match='VisionTransformer has no layers with running statistics: there are no aux'):
        task = create_task('advprop', model)
    assert task.extra_param_groups() == []
    result = task(torch.randn(4, 3, 32, 32) / 3, torch.arange(4))
    result['loss'].backward()
    torch.testing.assert_close(result['loss'].detach(), result['loss_clean'] + result['loss_adv'])
    assert result['loss_adv'] > result['loss_clean']


def test_frozen_batch_norm_is_nothing_auxiliary():
    model = freeze_batch_norm_2d(timm.create_model('test_resnet', num_classes=5))
    with pytest.warns(AlfaWarning, match='only frozen batch norm'):
        create_task('advprop', model)


def test_checkpointing_changes_nothing():
    results = []
    for checkpointing in (False, True):
        model, input, target = tiny(size=16)
        model.set_grad_checkpointing(checkpointing)
        task = create_task('advprop', model, **QUICK)
        move_norms_apart(task)
        torch.manual_seed(2)
        task(input, target)['loss'].backward()
        results.append([p.grad for p in task.parameters()] + [m.running_mean for m in task.extras.aux.values()])
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings('ignore::timm_alfa.errors.AlfaWarning')
def test_what_is_random_in_the_model_is_the_same_in_search_and_pass():
    model, input, target = tiny('test_vit', size=32, drop_rate=0.5, batch=2)
    losses = []

    def criterion(output, target):
        losses.append(F.cross_entropy(output, target))
        return losses[-1]

    create_task('advprop', model, criterion, random_start=False, step_size=0, steps=3)(input, target)
    clean, *rest = [loss.item() for loss in losses]
    assert len(set(rest)) == 1
    assert clean != rest[0]


def test_the_mean_and_std_given_count_over_the_models():
    model = tiny(size=16)[0]
    task = create_task('advprop', model, mean=(0.1,), std=(0.5,))
    assert task.pixels.mean == (0.1,)
    assert create_task('advprop', model).pixels.mean == tuple(model.pretrained_cfg['mean'])
    model.pretrained_cfg = {}
    with pytest.raises(ConfigError, match='does not say how its images are normalized'):
        create_task('advprop', model)


def test_images_that_were_never_normalized_so_are_noticed_once():
    model, input, target = tiny(size=16, batch=16)
    task = create_task('advprop', model, mean=(0.0,), std=(1.0,))
    with pytest.warns(AlfaWarning, match='outside'):
        task(input, target)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        task(input, target)


@pytest.mark.parametrize(
    ('config', 'says'),
    [
        (dict(steps=0, random_start=False), 'no image is perturbed'),
        (dict(step_size=0), '5 steps are paid for'),
        (dict(steps=2, random_start=False), 'cannot bind'),
    ],
    ids=str,
)
def test_options_without_effect_warn(config, says):
    with pytest.warns(AlfaWarning, match=says):
        create_task('advprop', tiny()[0], **config)


@pytest.mark.parametrize(
    ('config', 'says'),
    [
        (dict(eps=4), 'eps is 4: pixels lie in'),
        (dict(step_size=1.5), 'such as 1.5/255'),
        (dict(eps=0), 'above 0'),
        (dict(mean=(0.5,)), 'go together'),
        (dict(mean=(0.5,), std=(0.5, 0.5)), 'equally many of each'),
        (dict(mean=(0.5,), std=(0.0,)), 'above 0'),
    ],
    ids=str,
)
def test_wrong_options_are_refused(config, says):
    with pytest.raises(ConfigError, match=says):
        create_task('advprop', tiny()[0], **config)


def test_networks_of_other_norms_have_auxiliary_ones_too():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten(), nn.LazyLinear(5)
    )
    model(torch.randn(2, 3, 8, 8))
    task = create_task('advprop', model, mean=MEAN, std=STD)
    task(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))['loss'].backward()
    assert list(task.extras.aux) == ['1']
