"""SAM against its definition, written as its users write it: weights changed in place between two backward passes."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers.settings import assert_same_buffers, assert_same_grads, check_standard_step, gradients, tiny
from torch import nn
from torch.utils.checkpoint import checkpoint

from timm_alfa import create_task
from timm_alfa.errors import ConfigError
from timm_alfa.replay.flops import count_flops
from timm_alfa.tasks.objective import Objective
from timm_alfa.tasks.sam import SamConfig, SamTask

RHO = 0.2


@torch.no_grad()
def plain_change(model, rho, adaptive):
    """rho * T^2 g / ||T g||, from the gradients that the model holds."""
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    scales = {
        name: p.abs() + 0.01 if adaptive and 'weight' in name else torch.ones_like(p)
        for name, p in model.named_parameters()
    }
    norm = torch.stack([(scales[name] * grad).square().sum() for name, grad in grads.items()]).sum().sqrt()
    return {name: rho * scales[name] ** 2 * grad / norm for name, grad in grads.items()}


def plain_step(model, loss, rho=RHO, adaptive=False):
    """Both losses of a step; the model then has the gradients of SAM, and the buffers that the clean pass leaves."""
    state = torch.get_rng_state()
    clean = loss()
    clean.backward()
    change = plain_change(model, rho, adaptive)
    before = copy.deepcopy(model.state_dict())
    after = torch.get_rng_state()
    model.zero_grad()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(change.get(name, torch.zeros_like(p)))
    torch.set_rng_state(state)
    perturbed = loss()
    perturbed.backward()
    model.load_state_dict(before)
    torch.set_rng_state(after)
    return clean.detach(), perturbed.detach()


def general_task(model, objective, **config):
    """A task whose batches are whatever the objective takes."""

    class General(SamTask):
        @property
        def objective(self):
            return objective

    return General(model, config=SamConfig(**config))


def check(model, input, target, criterion=F.cross_entropy, times=2, **config):
    """Steps of the task are those of the definition: losses, gradients, running statistics, generator, weights."""
    plain, task = copy.deepcopy(model), create_task('sam', model, criterion, **{'rho': RHO, **config})
    options = {key: config[key] for key in ('rho', 'adaptive') if key in config}
    weights = copy.deepcopy(dict(model.named_parameters()))
    for seed in range(times):
        torch.manual_seed(seed)
        plain.zero_grad()
        clean, perturbed = plain_step(plain, lambda: criterion(plain(input), target), **options)
        expected = torch.get_rng_state()
        torch.manual_seed(seed)
        task.zero_grad()
        result = task(input, target)
        assert torch.equal(torch.get_rng_state(), expected)
        result['loss'].backward()
        torch.testing.assert_close(result['loss'].detach(), perturbed, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(result['loss_clean'], clean, rtol=1e-9, atol=1e-12)
        assert torch.equal(result['loss_adv'], result['loss'].detach())
        assert_same_grads(gradients(model), gradients(plain))
        assert_same_buffers(model, dict(plain.named_buffers()))
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    return result


@pytest.mark.parametrize('arch', ['resnet20s', 'test_vit', 'test_convnext'])
@pytest.mark.parametrize('config', [{}, dict(adaptive=True, rho=2.0)], ids=str)
def test_a_step_is_the_definition(arch, config):
    result = check(*tiny(arch, 32 if 'vit' in arch or 'next' in arch else 16), **config)
    assert result['loss_adv'] > result['loss_clean']


def test_both_passes_draw_the_same():
    check(*tiny('test_vit', 32, drop_rate=0.3, drop_path_rate=0.3))


def test_frozen_weights_are_not_perturbed():
    model, input, target = tiny(size=16)
    model.requires_grad_(False)
    model.layer3.requires_grad_(True)
    check(model, input, target)
    assert {name.split('.')[0] for name, p in model.named_parameters() if p.grad is not None} == {'layer3'}


class Tied(nn.Module):
    """Two names of one weight, a recurrent layer that keeps a list of its weights, and a layer without use."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight, self.recurrent = self.first.weight, nn.LSTM(8, 8, batch_first=True)
        self.double()

    def forward(self, x):
        return self.last(self.recurrent(self.first(x).tanh())[0][:, -1])


def test_tied_weights_and_those_that_reach_nothing():
    torch.manual_seed(0)
    model = Tied()
    check(model, torch.randn(4, 3, 8, dtype=torch.float64), torch.arange(4))
    assert model.unused.weight.grad is None and model.last.weight is model.first.weight


class Checkpointed(nn.Module):
    """Runs parts of a model again in the backward pass, without a flag that says so."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        x = self.model.act1(self.model.bn1(self.model.conv1(x)))
        for part in (self.model.layer1, self.model.layer2, self.model.layer3):
            x = checkpoint(part, x, use_reentrant=False)
        return self.model.forward_head(x)


def test_checkpoints_find_the_perturbed_weights():
    """A backward pass that runs modules again after they have their own weights back would silently be wrong."""
    model, input, target = tiny(size=16)
    other, hidden = copy.deepcopy(model), Checkpointed(copy.deepcopy(model))
    other.set_grad_checkpointing()
    results = []
    for each in (model, other, hidden):
        task = create_task('sam', each, rho=RHO)
        results.append(task(input, target))
        results[-1]['loss'].backward()
    for result, each in zip(results[1:], (other, hidden.model), strict=True):
        torch.testing.assert_close(result['loss'], results[0]['loss'], rtol=1e-9, atol=1e-9)
        assert_same_grads(gradients(each), gradients(model))
    standard = copy.deepcopy(other)
    standard.load_state_dict(tiny(size=16)[0].state_dict())
    create_task('standard', standard)(input, target)['loss'].backward()
    assert_same_buffers(other, dict(standard.named_buffers()))


def test_checkpoints_in_fp16_are_refused():
    model, input, target = tiny(size=16, dtype=torch.float32)
    model.set_grad_checkpointing()
    with pytest.raises(ConfigError, match='checkpointed activations in fp16'), torch.autocast('cpu', torch.float16):
        create_task('sam', model)(input, target)


class Temper(nn.Module):
    """A loss that learns."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, output, image):
        return F.cross_entropy(output['logits'] * self.factor, image['class']) + output['size']


class Twice(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.body = model

    def forward(self, x):
        logits = self.body(x)
        return {'logits': logits, 'size': logits.square().mean()}


@pytest.mark.parametrize('checkpointed', [False, True])
def test_any_call_and_loss(checkpointed):
    model, input, target = tiny(size=16)
    model.set_grad_checkpointing(checkpointed)
    criterion, batch = Temper(), ({'image': input.requires_grad_(), 'class': target},)
    objective = Objective(
        lambda model, image: model(image['image'] * 2), lambda output, image: criterion(output, image), (criterion,)
    )
    plain = Twice(copy.deepcopy(model))
    task = general_task(Twice(model), objective, rho=RHO)
    task(*batch)['loss'].backward()
    found = [criterion.factor.grad, input.grad]
    criterion.zero_grad()
    input.grad = None
    plain_step(plain, lambda: objective.loss(objective.call(plain, *batch), *batch))
    assert_same_grads(gradients(task.model), gradients(plain))
    # the plain step adds the gradients of both passes to what is not the model's
    clean, of_input = torch.autograd.grad(
        objective.loss(objective.call(plain, *batch), *batch), [criterion.factor, input]
    )
    torch.testing.assert_close(found, [criterion.factor.grad - clean, input.grad - of_input], rtol=1e-7, atol=1e-12)


def test_without_a_radius_it_is_standard_training():
    check_standard_step('sam', rho=0)


def test_a_gradient_without_a_direction_changes_no_weight():
    """Zero, or not finite although the loss is: the loss is then the clean one."""

    class Root(nn.Module):
        def __init__(self, power):
            super().__init__()
            self.weight, self.power = nn.Parameter(torch.zeros(2)), power

        def forward(self, x):
            return self.weight.abs() ** self.power + 1

    for power in (0.5, 0.0):
        task = general_task(Root(power), Objective(lambda model, x: model(x), lambda output, x: output.sum()))
        result = task(torch.ones(1))
        assert result['loss'] == result['loss_clean'] == task.model(None).sum()


def test_a_loss_that_is_not_finite_is_reported():
    model, input, target = tiny(size=16, dtype=torch.float32)
    input[0, 0, 0, 0] = float('nan')
    result = create_task('sam', model)(input, target)
    assert result['loss'].isnan() and result['loss_clean'].isnan()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_finds_the_step_of_single_precision(dtype):
    """The loss of a large batch or a confident network is small: unscaled gradients would vanish in fp16."""
    model, input, target = tiny('test_vit', 32, dtype=torch.float32)
    small = lambda output, target: F.cross_entropy(output.float(), target) * 1e-5  # noqa: E731
    rises, grads = [], []
    for half in (False, True):
        task = create_task('sam', copy.deepcopy(model), small, rho=0.5)
        scaler = torch.amp.GradScaler('cpu', init_scale=2.0**16, enabled=half)
        with torch.autocast('cpu', dtype, enabled=half):
            result = task(input, target)
        optimizer = torch.optim.SGD(task.parameters(), lr=0.0)
        scaler.scale(result['loss']).backward()
        scaler.unscale_(optimizer)
        rises.append((result['loss_adv'] / result['loss_clean']).item())
        grads.append(torch.cat([p.grad.flatten() for p in task.parameters()]))
    assert rises[0] > 1.05
    assert rises[1] - 1 == pytest.approx(rises[0] - 1, rel=0.15)
    assert F.cosine_similarity(*grads, dim=0) > 0.98


def test_a_first_gradient_that_overflows_costs_one_step():
    model, input, target = tiny('test_vit', 32, dtype=torch.float32)
    task = create_task('sam', model, lambda output, target: F.cross_entropy(output.float(), target) * 1e4)
    seen = []
    for _ in range(8):
        with torch.autocast('cpu', torch.float16):
            result = task(input, target)
        assert result['loss'].isfinite()
        seen.append((result['loss_adv'] > result['loss_clean']).item())
    assert seen[0] is False and seen[-1] is True
    other = create_task('sam', tiny('test_vit', 32)[0])
    other.load_task_state(task.get_task_state())
    assert other.loss_scale.state_dict() == task.loss_scale.state_dict() != {'value': 2.0**15, 'steady': 0}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_networks_that_are_half_themselves(dtype):
    model, input, target = tiny('test_vit', 32, dtype=dtype)
    result = create_task('sam', model, rho=1.0)(input, target)
    result['loss'].backward()
    assert result['loss_adv'] > result['loss_clean']
    assert all(p.grad.dtype == dtype for p in model.parameters())


def test_a_compiled_model_is_compiled_once_for_each_pass():
    torch.compiler.reset()
    model, input, target = tiny(size=16, batch=2)
    task, graphs = create_task('sam', model, rho=RHO), []
    task.compile(backend=lambda module, inputs: (graphs.append(1), module)[1])
    plain = copy.deepcopy(model)
    for _ in range(4):
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            p.data.mul_(1.01), q.data.mul_(1.01)
        task.zero_grad()
        plain.zero_grad()
        task(input, target)['loss'].backward()
        plain_step(plain, lambda: F.cross_entropy(plain(input), target))
        assert_same_grads(gradients(model), gradients(plain))
    assert len(graphs) == 2


def test_it_costs_two_standard_steps_when_it_perturbs():
    model, input, target = tiny(size=16, dtype=torch.float32)
    standard, task = create_task('standard', model), create_task('sam', model, every=2)
    costs = []
    for each in (standard, task, task):
        costs.append(count_flops(lambda each=each: each(input, target)['loss'].backward()))
        each.post_step()
    assert costs == [costs[0], 2 * costs[0], costs[0]]


def test_sharded_weights_are_refused(tmp_path):
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1)
    try:
        task = create_task('sam', nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        fully_shard(task.model[0], mesh=dist.device_mesh.init_device_mesh('cpu', (1,)))
        with pytest.raises(ConfigError, match='sam does not support FSDP2: launch with DDP'):
            task(torch.randn(2, 2), torch.arange(2))
    finally:
        dist.destroy_process_group()
