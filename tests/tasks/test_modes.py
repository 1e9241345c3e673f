"""ALFA in the ways networks are trained: memory formats, half precision, losses, checkpointing."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from helpers.settings import assert_same_buffers, assert_same_grads, check_step, gradients, move_norms_apart, tiny
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.utils.model import freeze_batch_norm_2d

from timm_alfa import create_task
from timm_alfa.errors import AlfaWarning, BlockError
from timm_alfa.perturb import ascent
from timm_alfa.perturb.features import perturb_feature
from timm_alfa.utils import pytree

QUICK = dict(steps=2, step_size=0.05)


def stepped(model, input, target, name='alfa', criterion=None, **config):
    task = create_task(name, model, criterion, **{**QUICK, **config})
    torch.manual_seed(5)
    result = task(input, target)
    result['loss'].backward()
    return task, result


def test_channels_last_is_kept_and_gives_the_same():
    model, input, target = tiny(size=16)
    other, seen = copy.deepcopy(model).to(memory_format=torch.channels_last), []
    other.layer3[0].conv1.register_forward_pre_hook(
        lambda m, a: seen.append(a[0].is_contiguous(memory_format=torch.channels_last) and not a[0].is_contiguous())
    )
    _, a = stepped(model, input, target, blocks='2')
    _, b = stepped(other, input.to(memory_format=torch.channels_last), target, blocks='2')
    assert len(seen) >= 3
    assert all(seen)
    torch.testing.assert_close(a['loss'], b['loss'], rtol=1e-9, atol=1e-9)
    assert_same_grads(gradients(other), gradients(model))


SOFT = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)


@pytest.mark.parametrize(
    ('criterion', 'soft'),
    [
        (SoftTargetCrossEntropy(), True),
        (LabelSmoothingCrossEntropy(0.1), False),
        (BinaryCrossEntropy(smoothing=0.1), False),
        (BinaryCrossEntropy(target_threshold=0.2), True),
        (nn.BCEWithLogitsLoss(), True),
        (nn.CrossEntropyLoss(label_smoothing=0.1), True),
    ],
    ids=str,
)
def test_criteria_and_soft_targets(criterion, soft):
    model, input, target = tiny(size=16)
    check_step(model, input, SOFT if soft else target, criterion, blocks='1,3', **QUICK)


class Tempered(nn.Module):
    """Cross-entropy with a temperature that is learned."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, output, target):
        return F.cross_entropy(output / self.temperature, target)


def test_a_criterion_that_learns_does_so_from_every_block():
    """With several blocks the perturbed losses' graphs are freed at once; of what they give nothing is lost."""
    model, input, target = tiny(size=16)
    criterion = Tempered()
    stepped(model, input, target, criterion=criterion, blocks='2,3', steps=1, step_size=1e-9)
    found, criterion.temperature.grad = criterion.temperature.grad, None
    criterion(model(input), target).backward()
    torch.testing.assert_close(found, 3 * criterion.temperature.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_gradients_that_overflow_in_fp16_leave_the_loss_finite(norm):
    model, input, target = tiny(size=16, dtype=torch.float32)
    with torch.no_grad():
        model.fc.weight.mul_(1e4)
    with torch.autocast('cpu', torch.float16):
        _, result = stepped(model, input, target, blocks='2', norm=norm)
    assert torch.isfinite(result['loss_adv'])


@pytest.mark.parametrize('name', ['alfa', 'adv_train'])
def test_where_a_whole_search_overflows_in_fp16_the_next_ones_do_not(name):
    """Without it, every gradient is NaN in every step, and the method is standard training for good."""
    model, input, target = tiny(size=16, dtype=torch.float32)
    factor = lambda output, y: F.cross_entropy(output, y) * 1e6  # noqa: E731
    options = dict(blocks='2') if name == 'alfa' else dict(mean=(0.5,), std=(0.5,), random_start=False)
    task, size = create_task(name, model, factor, steps=1, step_size=1e-3, **options), {}
    for step in range(12):
        with torch.autocast('cpu', torch.float16):
            size[step] = float(task(input, target)['delta_norm'])
    assert size[0] < 0.1 * size[11], 'the error that gap corrects was not there'
    with torch.autocast('cpu', torch.float16, enabled=False):
        assert size[11] > 0.9 * float(task(input, target)['delta_norm'])
    other = create_task(name, model, factor, steps=1, step_size=1e-3, **options)
    other.load_task_state(copy.deepcopy(task.get_task_state()))
    with torch.autocast('cpu', torch.float16):
        assert float(other(input, target)['delta_norm']) == pytest.approx(size[11], rel=1e-3), 'it is resumed'


@pytest.mark.parametrize('bn', ['shared', 'aux'])
def test_a_feature_inside_of_a_norm_is_refused_where_the_norm_would_run_on_placeholders(bn):
    model, input, target = tiny('test_efficientnet', 32)
    with pytest.raises(BlockError, match=r"such as blocks\.1\.0\.bn1\.act: name blocks\.1\.0\.bn1, or use bn='clean'"):
        create_task('alfa', model, blocks='blocks.1.0.bn1.act', bn=bn)
    for blocks, norms_of in (('blocks.1.0.bn1', bn), ('blocks.1.0.bn1.act', 'clean')):
        _, result = stepped(copy.deepcopy(model), input, target, blocks=blocks, bn=norms_of)
        assert torch.isfinite(result['loss'])


@pytest.mark.parametrize('bn', ['shared', 'aux'])
def test_norms_that_make_no_difference_warn(bn):
    for model, why in (
        (freeze_batch_norm_2d(tiny()[0]), 'only frozen batch norm'),
        (tiny('test_vit', 32)[0], 'no layers with running statistics'),
    ):
        with pytest.warns(AlfaWarning, match=f"bn='{bn}' has no effect: {type(model).__name__} has {why}"):
            create_task('alfa', model, bn=bn)


@pytest.mark.parametrize(
    ('name', 'options', 'why'),
    [
        ('alfa', dict(mode='joint'), "mode='joint' has no effect with one block, layer3"),
        ('l_alfa', dict(blocks='last'), 'with one block, layer3, eta is always 1: this is ALFA'),
    ],
)
def test_options_without_effect_on_one_block_warn(name, options, why):
    with pytest.warns(AlfaWarning, match=why):
        create_task(name, tiny()[0], **options)


class WithADeadEnd(nn.Module):
    def __init__(self):
        super().__init__()
        self.front, self.dead, self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.front(x).relu()
        self.dead(x)
        return self.head(self.body(x).tanh())


@pytest.mark.parametrize('steps', [1, 2])
def test_of_several_blocks_the_one_that_reaches_nothing_is_named(steps):
    task = create_task('alfa', WithADeadEnd(), blocks='dead,body', steps=steps)
    with pytest.raises(BlockError, match='nothing of dead reaches the loss'):
        task(torch.randn(4, 4), torch.arange(4) % 3)


@pytest.mark.parametrize('eps', [None, 0.01])
def test_no_graph_links_the_steps_of_a_search(monkeypatch, eps):
    """It would hold a feature's memory for each step."""
    model, input, target = tiny(size=16)
    linked, ascend = [], ascent.ascend

    def watching(gradient, *args, **kwargs):
        def watched(deltas):
            linked.append(any(d.grad_fn for d in pytree.floats(deltas)))
            return gradient(deltas)

        return ascend(watched, *args, **kwargs)

    monkeypatch.setattr(ascent, 'ascend', watching)
    stepped(model, input, target, blocks='1', steps=4, eps=eps)
    assert linked == [False] * 3


@pytest.mark.parametrize('name', ['alfa', 'l_alfa'])
def test_a_frozen_front(name):
    model, input, target = tiny(size=16)
    for part in (model.conv1, model.bn1, model.layer1):
        part.requires_grad_(False)
    if name == 'alfa':
        check_step(model, input, target, blocks='all', **QUICK)
    stepped(model, input, target, name, blocks='all')
    assert all((p.grad is None) != p.requires_grad for p in model.parameters())


class TwoParts(nn.Module):
    """Its body gives two tensors."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x), self.b(x)

    def __init__(self):
        super().__init__()
        self.body, self.head = self.Body(), nn.Linear(4, 5)

    def forward(self, x):
        a, b = self.body(x)
        return self.head((a + b).tanh())


@pytest.mark.parametrize('config', [{}, dict(random_start=True), dict(grad='tail'), dict(bn='aux')], ids=str)
@pytest.mark.filterwarnings('ignore::timm_alfa.errors.AlfaWarning')
def test_a_feature_with_one_frozen_part(config):
    """A tuple of which one tensor has no gradient is perturbed in both."""
    torch.manual_seed(0)
    model, input, target = TwoParts().double(), torch.randn(4, 4, dtype=torch.float64), torch.arange(4)
    model.body.a.requires_grad_(False)
    assert [x.requires_grad for x in model.body(input)] == [False, True]
    _, _, expected = check_step(model, input, target, blocks='body', **QUICK, **config)
    assert all(part.any() for part in expected.deltas['body'])


def test_only_the_head_is_trained():
    model, input, target = tiny(size=16)
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    check_step(model, input, target, blocks='last', **QUICK)


@pytest.mark.parametrize('name', ['alfa', 'l_alfa'])
def test_accumulated_gradients_are_the_sum(name):
    model, input, target = tiny('test_vit', 32)
    task = create_task(name, model, blocks='2,3', **QUICK)
    parts = []
    for rows in (slice(0, 2), slice(2, 4)):
        task.zero_grad()
        (task(input[rows], target[rows])['loss'] / 2).backward()
        parts.append(gradients(task))
    task.zero_grad()
    for rows in (slice(0, 2), slice(2, 4)):
        (task(input[rows], target[rows])['loss'] / 2).backward()
    want = {k: parts[0][k] + parts[1][k] for k in parts[0]}
    assert_same_grads(gradients(task), want)
    assert task.updates == 0


@pytest.mark.parametrize(
    ('arch', 'size', 'spec'),
    [
        ('resnet20s', 16, 'last'),
        ('resnet20s', 16, 'all'),
        ('resnet20s', 16, 'layer2.1,layer3.2.bn2'),
        ('test_resnet', 32, 'all'),
        ('test_efficientnet', 32, 'all'),
        ('test_vit', 32, 'all'),
        ('swin_s3_tiny_224', 32, '2,4'),
        ('test_convnext', 32, 'all'),
        ('test_convnext', 32, 'stages.1,stages.2.blocks.1.conv_dw'),
    ],
)  # the later one within what is checkpointed
@pytest.mark.parametrize('config', [{}, dict(mode='joint', bn='shared')], ids=str)
def test_checkpointed_activations_change_nothing(arch, size, spec, config):
    """Loss and gradients are equal; running statistics are what a checkpointed standard step makes of them."""
    kwargs = dict(depths=(1, 1, 1, 1), embed_dim=24, window_size=2) if arch.startswith('swin') else {}
    model, input, target = tiny(arch, size, batch=2, **kwargs)
    other, standard = copy.deepcopy(model), copy.deepcopy(model)
    other.set_grad_checkpointing()
    standard.set_grad_checkpointing()
    config = dict(blocks=spec, **config)
    _, want = stepped(model, input, target, **config)
    _, got = stepped(other, input, target, **config)
    torch.testing.assert_close(got['loss'], want['loss'], rtol=1e-9, atol=1e-9)
    assert_same_grads(gradients(other), gradients(model))
    assert [m.grad_checkpointing for m in other.modules() if hasattr(m, 'grad_checkpointing')].count(False) == 0
    if not config.get('bn'):
        torch.manual_seed(5)
        create_task('standard', standard)(input, target)['loss'].backward()
        assert_same_buffers(other, dict(standard.named_buffers()))


@pytest.mark.parametrize('mode', ['separate', 'joint'])
def test_checkpointed_activations_change_nothing_with_auxiliary_norms(mode):
    model, input, target = tiny(size=16)
    other = copy.deepcopy(model)
    other.set_grad_checkpointing()
    results = []
    for each in (model, other):
        task = create_task('alfa', each, blocks='1,3', bn='aux', mode=mode, **QUICK)
        move_norms_apart(task)
        task(input, target)['loss'].backward()
        results.append([p.grad for p in task.parameters()] + [m.running_mean for m in task.extras.aux.values()])
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


def test_checkpointing_saves_the_clean_pass_its_memory():
    model, input, target = tiny('resnet20s', 32)
    saved = []
    for on in (False, True):
        model.set_grad_checkpointing(on)
        task = create_task('alfa', model, blocks='last', **QUICK)
        task(input, target)['loss'].backward()
        kept = {}

        def pack(x, kept=kept):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            task(input, target)
        saved.append(sum(kept.values()))
    assert saved[1] < 0.6 * saved[0]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('arch', ['resnet20s', 'test_vit'])
def test_half_precision_searches_where_single_precision_does(arch, dtype):
    """With the loss scaled as a large batch or a confident network has it, unscaled fp16 gradients would vanish."""
    model, input, target = tiny(arch, 32, dtype=torch.float32)
    small = lambda output, y: F.cross_entropy(output.float(), y) * 1e-4  # noqa: E731
    signs, grads = {}, []
    for half in (False, True):
        task = create_task('alfa', copy.deepcopy(model), small, blocks='1', steps=1, step_size=1e-3)
        kept = task.search
        task.search = lambda *a, kept=kept, half=half: signs.setdefault(half, kept(*a))
        if not half:
            exact = task._gradients
            task._gradients = lambda *a, exact=exact, **k: grads.append(exact(*a, **k)) or grads[-1]
        with torch.autocast('cpu', dtype, enabled=half):
            result = task(input, target)
        result['loss'].backward()
        assert torch.isfinite(result['loss'])
        assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)
    exact, found = signs[False][0][0], signs[True][0][0]
    size = grads[0][0][0].abs()
    large = size > 0.1 * size.mean()
    assert found.dtype == torch.float32
    agreed = (exact.sign() == found.sign())[large].float().mean()
    assert agreed > (0.95 if dtype == torch.float16 else 0.9), f'{float(agreed):.3f} of the signs agree'


class SmallLoss:
    """A loss as small as a confident network has it: without a scale its gradients are zero in fp16."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, output, target):
        return F.cross_entropy(output.float(), target) * self.factor


def test_gradients_of_perturbed_losses_do_not_underflow():
    """The scale of the training step reaches the losses of all blocks: they are not differentiated before."""
    model, input, target = tiny('test_vit', 32, dtype=torch.float32)
    scale, grads = 2.0**16, []
    for half in (False, True):
        own = copy.deepcopy(model)
        task = create_task('alfa', own, SmallLoss(1e-6), blocks='all', weight=100.0, steps=1, step_size=1e-3)
        with torch.autocast('cpu', torch.float16, enabled=half):
            loss = task(input, target)['loss']
        (loss * scale).backward()
        grads.append(torch.cat([p.grad.flatten() / scale for p in own.blocks[0].parameters()]))
    exact, found = grads
    assert (found - exact).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize('name', ['adv_train', 'advprop'])
def test_searches_in_pixels_do_not_underflow(name):
    """Neither because the loss is small nor because it is a mean over many images."""
    model, input, target = tiny(size=16, dtype=torch.float32, batch=2)
    input, target = input.repeat(8, 1, 1, 1), target.repeat(8)
    options = dict(mean=(0.5,), std=(0.5,), random_start=False, steps=1, step_size=1e-3, eps=0.1)
    deltas = []
    for half in (False, True):
        task = create_task(name, copy.deepcopy(model), SmallLoss(1e-7), **options)
        with torch.autocast('cpu', torch.float16, enabled=half):
            deltas.append(task.attack(input.sigmoid() * 2 - 1, target)[1])
    exact, found = deltas
    assert (exact.sign() == found.sign()).float().mean() > 0.8


def test_a_perturbation_too_small_for_fp16_is_not_lost():
    """Under autocast a feature of 1 and a delta of 1e-4 are added in single precision."""
    feature, delta = torch.ones(4, dtype=torch.float16), torch.full((4,), 1e-4)
    with torch.autocast('cpu', torch.float16):
        torch.testing.assert_close(perturb_feature([delta], feature), torch.full((4,), 1.0001), rtol=0, atol=1e-7)
    assert perturb_feature([delta], feature).dtype == torch.float16


def test_a_batch_of_one_in_fp16_does_not_overflow():
    model, input, _ = tiny('test_vit', 32, dtype=torch.float32, batch=1)
    task = create_task('alfa', model, blocks='1', steps=2, step_size=1e-2)
    with torch.autocast('cpu', torch.float16):
        target = model(input).argmin(1)
        with torch.no_grad():
            model.head.weight.mul_(100)
        result = task(input, target)
    count = task._replay.record(input, target).features[0].numel()
    assert result['delta_norm'] > 0.8 * 2e-2 * count**0.5 * 0.5
    assert result['loss_adv'] > result['loss_clean']


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_networks_that_are_half_themselves(dtype):
    model, input, target = tiny('test_vit', 32, dtype=dtype)
    task = create_task('alfa', model, blocks='2', steps=2, step_size=0.05)
    result = task(input, target)
    result['loss'].backward()
    assert result['loss'].dtype == dtype
    assert result['loss_adv'] > result['loss_clean']
    assert result['delta_norm'] > 0


def test_replays_of_a_wrapped_model_use_what_is_inside():
    model, input, target = tiny(size=16, batch=2)
    with pytest.warns(AlfaWarning, match='wrapped') as caught:
        task = create_task('alfa', torch.compile(copy.deepcopy(model), backend='eager'), blocks='2', bn='aux', **QUICK)
    assert caught[0].filename == __file__
    _, want = stepped(model, input, target, blocks='2', bn='aux')
    torch.testing.assert_close(task(input, target)['loss'], want['loss'], rtol=1e-9, atol=1e-9)
