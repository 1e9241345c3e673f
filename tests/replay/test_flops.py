"""What a step costs, counted: multiplications against the design's floor, and activations held at a time."""

import pytest
import timm
import torch
from helpers.measuring import Alive

from timm_alfa import create_task
from timm_alfa.replay import accumulate
from timm_alfa.replay.flops import FlopCounter, count_flops, floor, forward_after


def build(arch, size=32):
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=10, **({'img_size': size} if 'vit' in arch else {})).train()
    return model, torch.randn(2, 3, size, size), torch.tensor([1, 2])


@pytest.mark.parametrize(
    'layer',
    [
        torch.nn.Conv2d(6, 4, 3),
        torch.nn.Conv2d(6, 6, 3, groups=6),
        torch.nn.Conv2d(6, 4, 3, groups=2, stride=2),
        torch.nn.ConvTranspose2d(6, 4, 3, groups=2, stride=2),
    ],
    ids=str,
)
def test_both_gradients_of_a_convolution_cost_what_it_costs(layer):
    x = torch.randn(2, 6, 9, 9, requires_grad=True)
    size = (x if isinstance(layer, torch.nn.ConvTranspose2d) else layer(x)).numel()
    forward = 2 * size * layer.weight[0].numel()
    assert count_flops(lambda: layer(x)) == forward
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * forward


@pytest.mark.parametrize('arch', ['resnet20s', 'resnet18_cifar', 'test_vit', 'test_efficientnet'])
@pytest.mark.parametrize('blocks', ['last', '3', 'all', 'units'])
@pytest.mark.parametrize('steps', [1, 5])
@pytest.mark.filterwarnings('ignore::timm_alfa.errors.AlfaWarning')
def test_a_step_is_at_the_floor(arch, blocks, steps):
    model, input, target = build(arch)
    task = create_task('alfa', model, blocks=blocks, steps=steps)
    task(input, target)['loss'].backward()  # the first step learns
    with FlopCounter() as counted:
        task(input, target)['loss'].backward()
    ratio = counted.total / floor(model, [[name] for name in task.blocks], input, steps=steps)
    print(f'{arch} {blocks} K={steps}: {ratio:.4f} of the floor')
    assert ratio <= 1.02


def test_options_cost_no_more():
    model, input, target = build('resnet20s')
    for config in (dict(bn='aux'), dict(bn='shared'), dict(norm='l2', eps=1e-3), dict(grad='tail')):
        task = create_task('alfa', model, blocks='all', steps=3, **config)
        task(input, target)['loss'].backward()
        with FlopCounter() as counted:
            task(input, target)['loss'].backward()
        # auxiliary norms have no free first step
        extra = sum(forward_after(model, task.blocks, input)[1].values()) if config.get('bn') == 'aux' else 0
        assert counted.total <= 1.02 * (floor(model, [[name] for name in task.blocks], input, steps=3) + 2 * extra), (
            config
        )


def test_steps_without_perturbation_cost_a_standard_step():
    model, input, target = build('resnet20s')
    task, standard = create_task('alfa', model, every=2), create_task('standard', model)
    task(input, target)['loss'].backward()
    task.post_step()
    with FlopCounter() as one:
        task(input, target)['loss'].backward()
    with FlopCounter() as two:
        standard(input, target)['loss'].backward()
    assert one.total == two.total


class Held:
    """Bytes of tensors that graphs hold for their backward passes: now, and at most."""

    def __init__(self, besides):
        self.now = self.most = 0
        self.storages = {}
        self.besides = {p.untyped_storage().data_ptr() for p in besides}

    def pack(self, x):
        return _Saved(self, x.detach() if x.is_leaf and x.requires_grad else x)

    def add(self, x, sign):
        key, size = x.untyped_storage().data_ptr(), x.untyped_storage().nbytes()
        if key in self.besides:
            return
        before = self.storages.get(key, 0)
        self.storages[key] = before + sign
        if not before or not self.storages[key]:
            self.now += sign * size
        self.most = max(self.most, self.now)


class _Saved:
    def __init__(self, held, x):
        self.held, self.x = held, x
        held.add(x, 1)

    def __del__(self):
        self.held.add(self.x, -1)


def held_by(monkeypatch, task, input, target):
    task(input, target)['loss'].backward()
    held = Held([*task.model.parameters(), *task.model.buffers(), input])
    apply = accumulate._StoredGradients.apply

    def besides(value, grads, *inputs):
        held.besides.update(g.untyped_storage().data_ptr() for g in grads if g is not None)
        return apply(value, grads, *inputs)

    monkeypatch.setattr(accumulate._StoredGradients, 'apply', besides)
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda saved: saved.x):
        loss = task(input, target)['loss']
    monkeypatch.undo()
    at_end = held.now
    loss.backward()
    return held.most, at_end


def test_separate_mode_holds_one_tail_at_a_time(monkeypatch):
    """Activations of ten blocks need little more than the standard step and the longest tail, not ten tails.

    The gradients of each tail, which wait for the whole loss, are not counted.
    """
    model, input, target = build('resnet20s')
    standard, _ = held_by(monkeypatch, create_task('standard', model), input, target)
    one, _ = held_by(monkeypatch, create_task('alfa', model, blocks='units:1'), input, target)
    assert one <= 1.05 * standard
    first, _ = held_by(monkeypatch, create_task('alfa', model, blocks='act1'), input, target)
    every, at_end = held_by(monkeypatch, create_task('alfa', model, blocks='units'), input, target)
    assert every <= 1.1 * first
    assert at_end <= 1.2 * standard
    joint, _ = held_by(monkeypatch, create_task('alfa', model, blocks='units', mode='joint'), input, target)
    assert joint <= 1.2 * first


@pytest.mark.parametrize('blocks', ['last', 'units'])
def test_the_first_step_needs_no_more_memory_than_those_after_it(blocks):
    """What a replay needs is learned in a pass without gradients, of two images."""
    model, input, target = build('resnet20s')
    input, target = input.repeat(8, 1, 1, 1), target.repeat(8)
    task, most = create_task('alfa', model, blocks=blocks, steps=2), []
    for _ in range(2):
        model.zero_grad()
        with Alive() as alive:
            task(input, target)['loss'].backward()
        most.append(alive.most)
    assert most[0] <= 1.02 * most[1]
