"""What timm's loop and a plain one ask of every task."""

import copy

import pytest
import torch
import torch.distributed as dist
from helpers.settings import tiny
from timm.task import ClassificationTask

from timm_alfa import create_task
from timm_alfa.errors import CheckpointError

METHODS = (
    ('standard', {}),
    ('alfa', dict(blocks='2')),
    ('alfa', dict(blocks='all', bn='aux')),
    ('l_alfa', dict(blocks='units:3')),
    ('l_alfa', dict(blocks='all', bn='aux', mode='joint')),
)


def made(name, config, arch='resnet20s', seed=0):
    model, input, target = tiny(arch, 16, dtype=torch.float32, seed=seed)
    task = create_task(name, model, **config)
    groups = [{'params': list(model.parameters())}, *task.extra_param_groups()]
    return task, torch.optim.SGD(groups, lr=0.02, momentum=0.9), input, target


@pytest.mark.parametrize(('name', 'config'), METHODS, ids=str)
def test_a_plain_loop_of_ten_lines_learns(name, config):
    task, optimizer, input, target = made(name, config)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        result = task(input, target)
        result['loss'].backward()
        optimizer.step()
        task.post_step()
        losses.append(float(result.get('loss_clean', result['loss'])))
    assert losses[-1] < 0.7 * losses[0]
    assert task.updates == 8


@pytest.mark.parametrize(('name', 'config'), METHODS, ids=str)
def test_timms_loop_counts_each_update_once(name, config):
    """timm calls update_ema after an optimizer step and never post_step; whoever calls both counts once."""
    task, optimizer, input, target = made(name, config)
    task.setup_ema(decay=0.5)
    for step in range(1, 4):
        for _ in range(2):  # accumulated
            task(input, target)['loss'].backward()
        optimizer.step()
        task.update_ema(step=step)
        assert task.updates == step
    task(input, target)['loss'].backward()
    task.post_step()
    task.update_ema(step=4)
    assert task.updates == 4
    task(input, target)['loss'].backward()
    task.update_ema(step=5)
    task.post_step()
    assert task.updates == 5
    if name == 'l_alfa':
        assert float(task.eta.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize(('name', 'config'), METHODS, ids=str)
def test_checkpoints_are_timms_and_come_back(name, config, ema):
    task, optimizer, input, target = made(name, config)
    task.setup_ema(decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        task(input, target)['loss'].backward()
        optimizer.step()
        task.update_ema()
    state = copy.deepcopy(task.get_checkpoint_state(ema=ema))
    weights, own = (state[k + '_ema' * ema] for k in ('state_dict', 'task_state'))
    assert list(weights) == list(tiny()[0].state_dict())
    assert own['updates'] == 3
    other, _, _, _ = made(name, config, seed=1)
    other.setup_ema()
    other.load_checkpoint_state(weights, own, ema=ema)
    again = other.get_checkpoint_state(ema=ema)
    assert other.updates == 3
    for a, b in (
        (weights, again['state_dict' + '_ema' * ema]),
        (own.get('own', {}), again['task_state' + '_ema' * ema].get('own', {})),
    ):
        assert list(a) == list(b)
        assert all(torch.equal(a[k], b[k]) for k in a)
    if name == 'l_alfa':
        assert not torch.equal(own['own']['eta'], torch.ones(3))
    with torch.no_grad():
        assert torch.equal(task.get_eval_model(ema=ema).eval()(input), other.get_eval_model(ema=ema).eval()(input))


def test_weights_without_task_state_load():
    task, _, _, _ = made('l_alfa', dict(blocks='all'))
    before = task.eta.clone()
    task.load_checkpoint_state(tiny(seed=3)[0].float().state_dict(), None)
    assert torch.equal(before, task.eta)
    assert task.updates == 0


def test_the_ema_moves():
    task, optimizer, input, target = made('l_alfa', dict(blocks='all'))
    task.setup_ema(decay=0.5)
    etas = []
    for step in (1, 2):  # timm's first update copies
        task(input, target)['loss'].backward()
        optimizer.step()
        task.update_ema(step=step)
        etas.append(task.eta.detach().clone())
    ema = task.get_trainable_module(ema=True).module
    assert not torch.equal(*etas)
    assert torch.allclose(ema.eta, sum(etas) / 2, atol=1e-6)


def test_the_eval_model_is_the_model():
    for name, config in METHODS:
        task, _, _, _ = made(name, config)
        assert task.get_eval_model() is task.model
        assert 'eta' not in task.model.state_dict()


@pytest.mark.parametrize(('name', 'config'), METHODS, ids=str)
def test_a_compiled_ema_is_what_is_evaluated(name, config):
    task, _, input, _ = made(name, config)
    task.setup_ema()
    want = task.get_checkpoint_state(ema=True)
    compiled = task.compile_ema(backend='eager')
    assert task.get_eval_model(ema=True) is compiled
    assert list(task.get_checkpoint_state(ema=True)['state_dict_ema']) == list(want['state_dict_ema'])
    other, _, _, _ = made(name, config, seed=1)
    with pytest.raises(CheckpointError, match='setup_ema'):
        other.load_checkpoint_state(want['state_dict_ema'], ema=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(input), task.model.eval()(input))


def test_standard_is_timms():
    task, _, input, target = made('standard', {})
    other = ClassificationTask(copy.deepcopy(task.model), verbose=False)
    result, want = task(input, target), other(input, target)
    assert set(result) == set(want)
    assert torch.equal(result['loss'], want['loss'])


@pytest.mark.parametrize(('name', 'config'), METHODS, ids=str)
def test_in_evaluation_nothing_is_perturbed(name, config):
    task, _, input, target = made(name, config)
    task.eval()
    before = copy.deepcopy(task.state_dict())
    with torch.no_grad():
        result = task(input, target)
    assert 'loss_adv' not in result
    assert all(torch.equal(v, before[k]) for k, v in task.state_dict().items())


def test_every_and_start():
    task, _, input, target = made('alfa', dict(every=3, start=2))
    seen = []
    for _ in range(9):
        seen.append('loss_adv' in task(input, target))
        task.post_step()
    assert [i for i, on in enumerate(seen) if on] == [2, 5, 8]


def test_networks_without_norms_take_auxiliary_ones():
    """Nothing to train in addition to the model: no groups, no error in steps without perturbation."""
    model, input, target = tiny('test_vit', 32, dtype=torch.float32)
    with pytest.warns(UserWarning, match='aux'):
        task = create_task('alfa', model, bn='aux', every=2)
    assert task.extra_param_groups() == []
    for _ in range(2):
        task(input, target)['loss'].backward()
        task.post_step()


@pytest.mark.parametrize('name', ['l_alfa', 'advprop'])
def test_layer_groups_are_the_models(name):
    """As timm's script builds its optimizer: a copied norm learns as what it copies, eta as the classifier."""
    from timm.optim import create_optimizer_v2

    task, _, _, _ = made(name, dict(blocks='all', bn='aux') if name == 'l_alfa' else {})
    optimizer = create_optimizer_v2(task.extras, 'sgd', lr=0.1, weight_decay=0.1, layer_decay=0.5)
    scales = {p: group['lr_scale'] for group in optimizer.param_groups for p in group['params']}
    assert len(scales) == len(list(task.extras.parameters()))
    assert len(set(scales.values())) > 3
    for key, norm in task.extras.aux.items():
        layer = task.model.get_submodule(key.replace('/', '.'))
        assert [scales[p] for p in norm.parameters()] == [scales[p] for p in layer.parameters()]
    if name == 'l_alfa':
        assert scales[task.eta] == scales[task.model.fc.weight] == 1
        assert all(g['weight_decay'] == 0 for g in optimizer.param_groups if any(p is task.eta for p in g['params']))


@pytest.mark.parametrize('name', ['alfa', 'l_alfa', 'noise', 'moex'])
def test_methods_leave_the_names_of_modules_alone(name):
    task = made(name, {})[0]
    assert all(p.dtype == torch.float16 for p in task.half().parameters())


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('alfa', dict(blocks='2')),
        ('alfa', dict(blocks='3', bn='aux')),
        ('advprop', dict(steps=1)),
        ('l_alfa', dict(blocks='2,3', every=2)),
        ('l_alfa', dict(blocks='2,3', mode='joint', every=2)),
        ('l_alfa', dict(blocks='all', bn='aux', mode='joint')),
        ('sam', dict(every=2)),
        ('isda', dict(ramp=2)),
    ],
    ids=str,
)
def test_networks_with_unused_parameters_are_distributed(name, config, one_process):
    task, _, input, target = made(name, config)
    task.model.unused = torch.nn.Linear(2, 2)
    alone = copy.deepcopy(task)
    task.prepare_distributed(find_unused_parameters=True)
    for _ in range(2):
        for each in (alone, task):
            each.zero_grad()
            torch.manual_seed(0)
            each(input, target)['loss'].backward()
            each.post_step()
        for (key, p), q in zip(alone.named_parameters(), task.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None) == ('unused' in key), key
            if p.grad is not None:
                assert torch.equal(p.grad, q.grad), key


def test_a_criterion_set_later_is_the_one_that_counts():
    task, _, input, target = made('alfa', dict(blocks='2'))
    before = task(input, target)
    task.criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.3)
    after = task(input, target)
    for key in ('loss_clean', 'loss_adv'):
        assert not torch.isclose(before[key], after[key])
    smoothed = task.criterion(after['output'], target)
    assert torch.equal(after['loss_clean'], smoothed.detach())


def test_a_batch_may_be_passed_by_name():
    task, _, input, target = made('alfa', dict(blocks='2'))
    losses = [task(input, target)['loss'], task(input=input, target=target)['loss'], task(input, target=target)['loss']]
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])
    with pytest.raises(TypeError, match='a task takes input, target: got 1 positional and label'):
        task(input, label=target)


@pytest.mark.parametrize(
    ('options', 'acting'),
    [
        (dict(), [0, 1, 2, 3, 4, 5]),
        (dict(start=2), [2, 3, 4, 5]),
        (dict(every=2), [0, 2, 4]),
        (dict(start=1, every=2), [1, 3, 5]),
    ],
    ids=str,
)
def test_updates_in_which_a_method_acts(options, acting):
    task = create_task('alfa', tiny(size=16)[0], blocks='2', **options)
    found = []
    for update in range(6):
        if task.perturbs():
            found.append(update)
        task.count_update()
    assert found == acting
