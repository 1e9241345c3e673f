"""L-ALFA: algorithm 1 against a plain loop."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.rewriting import plain_step
from helpers.settings import assert_same_grads, check_step, tiny

from timm_alfa import create_task, resolve_blocks
from timm_alfa.errors import AlfaWarning, BlockError


def _sorted_simplex(eta):
    """Projection onto the simplex by sorting (Duchi et al. 2008)."""
    u = eta.sort(descending=True).values
    shift = (u.cumsum(0) - 1) / torch.arange(1, len(u) + 1, dtype=u.dtype)
    return (eta - shift[(u > shift).nonzero()[-1, 0]]).clamp_min(0)


PROJECT = {'simplex': _sorted_simplex, 'hyperplane': lambda eta: eta + (1 - eta.sum()) / len(eta)}
LEARNING_RATE, MOMENTUM, DECAY = 0.05, 0.9, 1e-3


@pytest.mark.parametrize(
    'config',
    [
        dict(projection='hyperplane', gamma=1.0),
        dict(projection='simplex', gamma=0.0),
        dict(projection='hyperplane', gamma=0.3, reduction='mean', grad='tail'),
        dict(projection='hyperplane', gamma=0.5, mode='joint', blocks='all'),
    ],
    ids=str,
)
def test_three_steps_are_algorithm_one(config):
    """Search, one optimizer step for weights and eta, projection, three times: a loop with its own momentum."""
    model, _, _ = tiny(size=16)
    config = {'blocks': 'units:3', 'mode': 'separate', 'steps': 2, 'step_size': 0.05, 'eta_lr': 0.1, **config}
    plain = copy.deepcopy(model)
    task = create_task('l_alfa', model, **config)
    task.extras.eta.data = task.extras.eta.data.double()
    optimizer = torch.optim.SGD(
        [{'params': list(model.parameters()), 'weight_decay': DECAY}, *task.extra_param_groups()],
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
    )
    eta = torch.ones(3, dtype=torch.float64)
    speed, eta_speed = {k: torch.zeros_like(p) for k, p in plain.named_parameters()}, torch.zeros_like(eta)
    names = resolve_blocks(model, config['blocks'])
    options = {k: v for k, v in config.items() if k not in ('blocks', 'eta_lr', 'projection')}
    for _ in range(3):
        input, target = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.randint(5, (4,))
        step = plain_step(plain, names, input, target, eta=eta.requires_grad_(), **options)
        with torch.no_grad():
            for name, p in plain.named_parameters():
                grad = (torch.zeros_like(p) if step.grads[name] is None else step.grads[name]) + DECAY * p
                speed[name] = MOMENTUM * speed[name] + grad
                p -= LEARNING_RATE * speed[name]
            eta_speed = MOMENTUM * eta_speed + step.eta_grad
            eta = PROJECT[config['projection']](eta.detach() - 0.1 * eta_speed)
        optimizer.zero_grad()
        result = task(input, target)
        result['loss'].backward()
        optimizer.step()
        task.post_step()
        torch.testing.assert_close(result['loss'].detach(), step.loss, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(task.eta.detach(), eta, rtol=1e-9, atol=1e-9)
        assert float(task.eta.detach().sum()) == pytest.approx(1, abs=1e-9)
        assert_same_grads(dict(model.named_parameters()), dict(plain.named_parameters()))
    assert task.updates == 3
    assert not torch.equal(eta, torch.full_like(eta, 1 / 3)), 'eta has learned nothing'


@pytest.mark.parametrize(
    'config',
    [
        dict(blocks='all', bn='shared'),
        dict(blocks='all', bn='aux', mode='joint'),
        dict(blocks='1', norm='l2', eps=0.09),
    ],
    ids=str,
)
def test_eta_as_ones_is_alfa_with_a_constant(config):
    """At its start eta is one: ALFA's gradients, and a loss that is larger by gamma * r."""
    config = {'mode': 'separate', 'steps': 2, 'step_size': 0.05, **config}
    torch.manual_seed(1)
    model, input, target = tiny(size=16)
    other = copy.deepcopy(model)
    one, two = create_task('l_alfa', model, gamma=0.25, **config), create_task('alfa', other, **config)
    a, b = one(input, target), two(input, target)
    a['loss'].backward()
    b['loss'].backward()
    torch.testing.assert_close(a['loss'] - 0.25 * len(one.blocks), b['loss'], rtol=1e-9, atol=1e-9)
    grads = [{k: p.grad for k, p in m.named_parameters()} for m in (model, other)]
    assert_same_grads(*grads)
    assert one.eta.grad.abs().min() > 0


def test_delta_is_searched_for_without_eta():
    """With a tiny eta the perturbation found is the same as ever: delta_norm tells."""
    model, input, target = tiny(size=16)
    task = create_task('l_alfa', copy.deepcopy(model), blocks='1', steps=2, step_size=0.05)
    with torch.no_grad():
        task.eta.fill_(1e-6)
    found = task(input, target)
    want = create_task('alfa', copy.deepcopy(model), blocks='1', steps=2, step_size=0.05)(input, target)
    torch.testing.assert_close(found['delta_norm'], want['delta_norm'])
    assert abs(float(found['loss_adv'] - found['loss_clean'])) < 1e-5 < float(want['loss_adv'] - want['loss_clean'])


def test_a_negative_eta_counts_with_its_absolute_value():
    """In the loss and, by its sign, in the gradient."""
    model, input, target = tiny(size=16)
    found = []
    for gamma in (0.0, 0.5):
        task = create_task('l_alfa', copy.deepcopy(model), blocks='all', steps=1, step_size=0.05, gamma=gamma)
        with torch.no_grad():
            task.eta.copy_(torch.tensor([-0.75, 1.5, 0.25]))
        result = task(input, target)
        result['loss'].backward()
        found.append((result['loss'].detach(), task.eta.grad))
    torch.testing.assert_close(found[1][0] - found[0][0], torch.tensor(0.5 * 2.5).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1][1] - found[0][1], torch.tensor([-0.5, 0.5, 0.5]), rtol=1e-5, atol=1e-5)


def test_eta_has_a_separate_group():
    model, _, _ = tiny('test_resnet')
    task = create_task('l_alfa', model, eta_lr=0.3, blocks='all', bn='aux')
    eta, aux = task.extra_param_groups()
    assert [id(p) for p in eta['params']] == [id(task.eta)]
    assert (eta['lr'], eta['momentum'], eta['weight_decay']) == (0.3, 0.9, 0)
    assert {id(p) for p in aux['params']} == {id(p) for p in task.extras.aux.parameters()}
    assert aux['weight_decay'] == 0
    assert not {id(p) for g in (eta, aux) for p in g['params']} & {id(p) for p in model.parameters()}


def test_steps_without_perturbation_leave_eta_its_zero_gradient():
    """Wrappers expect a gradient of every parameter in every step."""
    model, input, target = tiny(size=16)
    task = create_task('l_alfa', model, blocks='all', every=2, start=1, steps=1)
    etas = []
    for _ in range(4):
        task.zero_grad()
        result = task(input, target)
        result['loss'].backward()
        etas.append(bool(task.eta.grad.any()))
        assert ('loss_adv' in result) == etas[-1]
        task.post_step()
    assert etas == [False, True, False, True]


def test_results_are_detached_copies():
    model, input, target = tiny(size=16)
    task = create_task('l_alfa', model, blocks='all', steps=1)
    result = task(input, target)
    assert set(result) == {'loss', 'output', 'loss_clean', 'loss_adv', 'delta_norm', 'delta_ratio', 'eta'}
    assert not any(result[k].requires_grad for k in ('loss_clean', 'loss_adv', 'delta_norm', 'eta'))
    with torch.no_grad():
        task.eta.zero_()
    assert result['eta'].tolist() == [1, 1, 1]


@pytest.mark.parametrize(('config', 'word'), [(dict(eta_lr=0), 'eta_lr'), (dict(projection='simplex'), 'gamma')])
def test_options_without_effect_warn(config, word):
    with pytest.warns(AlfaWarning, match=word):
        create_task('l_alfa', tiny('test_resnet')[0], blocks='all', **config)


def test_soft_targets():
    model, input, _ = tiny(size=16)
    target = torch.rand(4, 5, dtype=torch.float64).softmax(1)
    check_step(
        model,
        input,
        target,
        lambda x, y: -(y * F.log_softmax(x, 1)).sum(1).mean(),
        blocks='all',
        steps=2,
        step_size=0.05,
    )


def test_the_default_takes_what_units_a_small_network_has():
    model = timm.create_model('test_resnet', num_classes=10)
    with pytest.warns(AlfaWarning, match='has 5 units'):
        task = create_task('l_alfa', model)
    assert len(task.eta) == len(task.blocks) == 5
    with pytest.raises(BlockError, match='1 to 5'):
        create_task('l_alfa', model, blocks='units:8')


def test_without_gradients_the_pass_is_plain():
    task = create_task('l_alfa', timm.create_model('resnet20s'), blocks='last')
    with torch.no_grad():
        result = task(torch.randn(2, 3, 32, 32), torch.tensor([1, 2]))
    assert 'loss_adv' not in result


def test_states_of_earlier_versions_load():
    """The keys on disk stay what they are, whatever the code calls them."""
    model = tiny(size=16, dtype=torch.float32)[0]
    task = create_task('l_alfa', model, blocks='1,2', bn='aux')
    old = {
        'updates': 7,
        'loss_scale': {'value': 2048.0, 'steady': 3},
        'own': {name: torch.full_like(value, 2) for name, value in task.get_task_state()['own'].items()},
    }
    assert {'eta', 'aux.layer1/0/bn1.weight', 'aux.layer1/0/bn1.running_mean'} < set(old['own'])
    task.load_task_state(copy.deepcopy(old))
    found = task.get_task_state()
    assert found.keys() == old.keys()
    assert (found['updates'], found['loss_scale']) == (7, old['loss_scale'])
    assert task.eta.tolist() == [2, 2]
    assert all(torch.equal(value, old['own'][name]) for name, value in found['own'].items())


def test_constraints_are_enforced_apart_from_counting():
    task = create_task('l_alfa', tiny(size=16)[0], blocks='1,2')
    task.constrain()
    assert float(task.eta.sum()) == pytest.approx(1)
    assert task.updates == 0
