"""Replays: exact, without work before the feature, and nothing left on the model whatever happens."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from helpers.measuring import calls_of
from helpers.settings import assert_same_grads, tiny

from timm_alfa import create_task, resolve_blocks
from timm_alfa.errors import AlfaWarning, BlockError
from timm_alfa.replay import norms
from timm_alfa.replay.redirect import redirected
from timm_alfa.replay.replay import Replay
from timm_alfa.utils import pytree


def fingerprint(model):
    """All of a model but its numbers: attributes, hooks, flags, and which buffers it holds."""
    found = {}
    for name, m in model.named_modules():
        for key, value in m.__dict__.items():
            if isinstance(value, dict):
                value = {k: id(v) for k, v in value.items()}
            else:
                value = value if isinstance(value, (bool, int, float, str)) else id(value)
            found[name, key] = value
    found['grad'] = {n: p.requires_grad for n, p in model.named_parameters()}
    return found


@pytest.mark.parametrize(
    ('arch', 'spec', 'front'),
    [
        ('resnet20s', 'last', ('conv1', 'bn1', 'layer')),
        ('resnet20s', 'layer2.1.bn1', ('conv1', 'layer1', 'layer2.0')),
        ('test_vit', '1', ('patch_embed', 'blocks.0')),
        ('test_efficientnet', '2', ('conv_stem', 'blocks.0', 'blocks.1')),
        ('resnet18', 'layer3.0.downsample', ('conv1', 'layer1', 'layer2', 'layer3.0.conv', 'layer3.0.bn')),
    ],
)
def test_nothing_before_the_feature_runs_again(arch, spec, front):
    model, input, _ = tiny(arch, 32, batch=2)
    replay = Replay(model, resolve_blocks(model, spec))
    record = replay.record(input)
    called = calls_of(model, lambda: replay.run(record, {0: lambda f: f}))
    assert called
    assert not [name for name in called if name.startswith(front)]


class Lists(nn.Module):
    """Calls the children of a bare list, of a dict and of a Sequential that is never called itself."""

    def __init__(self, kind):
        super().__init__()
        convs = [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)]
        self.kind = kind
        self.front = (
            nn.ModuleDict({'a': convs[0], 'b': convs[1]})
            if kind is nn.ModuleDict
            else (nn.Sequential(*convs) if kind is nn.Sequential else kind(convs))
        )
        self.middle, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        for layer in self.front.values() if self.kind is nn.ModuleDict else self.front:
            x = layer(x)
        return self.head(self.middle(x).mean((2, 3)))


@pytest.mark.parametrize('kind', [nn.ModuleList, nn.ModuleDict, nn.Sequential])
def test_children_of_lists_are_not_run_again(kind):
    model = Lists(kind)
    replay = Replay(model, ['middle'])
    record = replay.record(torch.randn(2, 3, 4, 4))
    assert calls_of(model, lambda: replay.run(record, {0: lambda f: f})) == ['head']


class Odd(nn.Module):
    """A module that is used three times, one of them after the feature; a skip around it; writes in place."""

    def __init__(self):
        super().__init__()
        self.act, self.a, self.feature, self.b = nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        skip = self.a(x)
        x = self.act(skip)
        x = self.feature(self.act(x))
        skip *= 2
        x += skip
        return self.act(self.b(x))


def test_modules_called_before_and_after_a_feature():
    model = Odd().double()
    input = torch.randn(3, 4, dtype=torch.float64)
    replay = Replay(model, ['feature'])
    for _ in range(3):
        record = replay.record(input)
        for _ in range(2):
            torch.testing.assert_close(replay.run(record, {0: pytree.cloned}), record.output, rtol=0, atol=0)
        moved = replay.run(record, {0: lambda f: f + 1}, attached=True)
        with torch.no_grad():
            x = model.a(input)
            want = model.act(model.b(model.feature(model.act(model.act(x))) + 1 + 2 * x))
        torch.testing.assert_close(moved, want, rtol=0, atol=1e-12)
        grads = torch.autograd.grad(moved.sum(), list(model.parameters()))
        hook = model.feature.register_forward_hook(lambda m, a, o: o + 1)
        wanted = torch.autograd.grad(model(input).sum(), list(model.parameters()))
        hook.remove()
        for got, want in zip(grads, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


class Nested(nn.Module):
    """Calls the children of a Sequential whose last child is a Sequential, and of that one if `deep`."""

    def __init__(self, deep):
        super().__init__()
        self.deep, self.stem = deep, nn.Linear(4, 4)
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))

    def forward(self, x):
        x = self.layers[0](self.stem(x))
        for layer in self.layers[1] if self.deep else self.layers[1:]:
            x = layer(x)
        return x


@pytest.mark.parametrize('deep', [False, True])
def test_a_later_feature_is_changed_once_however_its_module_is_called(deep):
    replay = Replay(Nested(deep), ['stem', 'layers'])
    for _ in range(2):
        record = replay.record(torch.randn(2, 4))
        moved = replay.run(record, {0: lambda f: f, 1: lambda f: f + 1})
        torch.testing.assert_close(moved, record.output + 1)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('act', '3 times'),
        ('never', '0 times'),
        ('missing', "no module 'missing'"),
        ('', 'no module'),
        ('whole', 'float'),
    ],
)
def test_features_that_cannot_be(name, message):
    class Whole(nn.Module):
        def forward(self, x):
            return x.long()

    model = Odd()
    model.never, model.whole = nn.Linear(1, 1), Whole()
    model.a.register_forward_hook(lambda m, a, o: (model.whole(o), o)[1])
    before = fingerprint(model)
    with pytest.raises(BlockError, match=message):
        Replay(model, [name]).record(torch.randn(2, 4))
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    'config',
    [
        dict(),
        dict(blocks='all', bn='aux'),
        dict(blocks='layer3.2.bn2'),
        dict(blocks='all', mode='joint'),
        dict(blocks='2', bn='shared', random_start=True),
    ],
    ids=str,
)
@pytest.mark.filterwarnings('ignore::timm_alfa.errors.AlfaWarning')
def test_a_step_leaves_nothing(config):
    model, input, target = tiny(size=16)
    model.grad_checkpointing = False
    model.layer1[0].bn1.eval()
    model.layer2[0].bn1.track_running_stats = False
    model.conv1.weight.requires_grad_(False)
    task = create_task('alfa', model, steps=2, **config)
    before = fingerprint(task)
    for _ in range(2):
        result = task(input, target)
        after = fingerprint(task)
        assert {k for k in before if before[k] != after[k]} <= {('', '_stepped')}
        result['loss'].backward()


class Stop(Exception):
    pass


class Bomb(nn.Module):
    """Passes on what it gets, until its n-th call."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise Stop
        return x


@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('calls', [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    'config',
    [dict(blocks='layer2'), dict(blocks='all', bn='aux', mode='joint'), dict(blocks='layer2,layer3.2.bn2')],
    ids=str,
)
@pytest.mark.filterwarnings('ignore::timm_alfa.errors.AlfaWarning')
def test_an_exception_leaves_nothing(config, calls, checkpointing):
    """In the recorded pass (1), the pass that learns (2), the search, the perturbed pass: the step after is exact."""
    model, input, target = tiny(size=16, batch=2)
    model.layer3.append(Bomb(calls))
    model.set_grad_checkpointing(checkpointing)
    task = create_task('alfa', model, steps=2, **config)
    before, numbers = fingerprint(task), copy.deepcopy(model.state_dict())
    rng = torch.get_rng_state()
    try:
        task(input, target)
    except Stop:
        assert model.layer3[-1].left == 0
    else:
        assert calls in (2, 3) or model.layer3[-1].left > 0, 'went off unheard, and not in the pass that learns'
    after = fingerprint(task)
    changed = {k for k in before if before[k] != after[k]}
    assert {key for _, key in changed} <= {'_stepped', 'left'}, changed
    assert torch.equal(rng, torch.get_rng_state())
    model.load_state_dict(numbers)
    model.layer3[-1].left = -1
    again, fresh = create_task('alfa', copy.deepcopy(model), steps=2, **config), task
    a, b = again(input, target), fresh(input, target)
    torch.testing.assert_close(a['loss'], b['loss'], rtol=1e-12, atol=1e-12)


def test_an_exception_of_the_criterion_leaves_nothing():
    model, input, target = tiny(size=16, batch=2)
    calls = []

    def criterion(output, target):
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        return F.cross_entropy(output, target)

    task = create_task('alfa', model, criterion, steps=3, blocks='1')
    before = fingerprint(task)
    with pytest.raises(Stop):
        task(input, target)
    assert {k for k, v in fingerprint(task).items() if before[k] != v} == {('', '_stepped')}


def test_two_tasks_on_one_model_take_turns():
    """Two tasks that share a model do as two with copies do: nothing of one is seen by the other."""
    model, input, target = tiny(size=16, batch=2)
    settings = [dict(blocks='1', steps=2, step_size=0.05), dict(blocks='layer3.2.bn2', steps=1, step_size=0.05)]
    other = copy.deepcopy(model)
    shared = [create_task('alfa', model, **c) for c in settings]
    for _ in range(2):
        for task, config in zip(shared, settings, strict=True):
            want = create_task('alfa', other, **config)(input, target)
            got = task(input, target)
            torch.testing.assert_close(got['loss'], want['loss'], rtol=1e-12, atol=1e-12)
    results = [task(input, target) for task in shared]  # both graphs alive
    sum(r['loss'] for r in results).backward()
    for config in settings:
        create_task('alfa', other, **config)(input, target)['loss'].backward()
    grads = [{k: p.grad for k, p in m.named_parameters()} for m in (model, other)]
    assert_same_grads(*grads)


def test_a_step_inside_the_recorded_pass_of_another():
    """A module that in its forward pass runs a whole step of another task on the same model."""
    model, input, target = tiny(size=16, batch=2)
    clean = copy.deepcopy(model)
    inner = create_task('alfa', model, blocks='1', steps=1, step_size=0.05)
    found, running = [], []

    def hook(module, args):
        if not running:
            running.append(1)
            found.append(inner(input, target)['loss'])

    with norms.freeze_running_stats(model):
        outer = Replay(model, ['layer3'])
        outer.record(input)
        handle = model.layer2.register_forward_pre_hook(hook)
        record = outer.record(input)
        handle.remove()
        torch.testing.assert_close(outer.run(record, {0: lambda f: f}), record.output, rtol=0, atol=0)
        want = create_task('alfa', clean, blocks='1', steps=1, step_size=0.05)(input, target)['loss']
    torch.testing.assert_close(found[0], want, rtol=1e-12, atol=1e-12)


def test_a_replay_inside_of_a_replay():
    model, input, _ = tiny(size=16, batch=2)
    a, b = Replay(model, ['layer1']), Replay(model, ['layer2.1'])
    with norms.freeze_running_stats(model):
        first, second = a.record(input), b.record(input)
        inner = []
        out = a.run(first, {0: lambda f: (inner.append(b.run(second, {0: lambda g: g})), f)[1]})
    torch.testing.assert_close(out, first.output, rtol=0, atol=0)
    torch.testing.assert_close(inner[0], first.output, rtol=0, atol=0)


def test_redirections_nest_and_are_undone():
    module = nn.Linear(2, 2)
    x = torch.randn(1, 2)
    want = module(x)
    with redirected({module: lambda f: lambda x: f(x) + 1}):
        with redirected({module: lambda f: lambda x: f(x) * 2}):
            torch.testing.assert_close(module(x), (want + 1) * 2)
        torch.testing.assert_close(module(x), want + 1)
    assert torch.equal(module(x), want)
    assert '_compiled_call_impl' not in module.__dict__


def test_redirections_are_undone_when_one_of_them_fails():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)

    def fail(original):
        raise Stop

    with pytest.raises(Stop), redirected({a: lambda f: f, b: fail}):
        pass
    assert '_compiled_call_impl' not in {**a.__dict__, **b.__dict__}


def test_a_record_holds_no_activations_before_a_feature_that_nothing_bypasses():
    """Placeholders stand in for them."""
    model, input, _ = tiny('resnet18', 64, batch=2)
    replay = Replay(model, ['layer3'])
    for _ in range(2):
        record = replay.record(input)
    assert replay.stands_alone(0)
    held = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for calls in record.calls.values()
        for call in calls
        for x in pytree.tensors(call.output)
    }
    assert sum(held.values()) <= sum(x.nbytes for x in pytree.tensors(record.features)) + 1000


def test_what_bypasses_a_feature_is_found():
    model, input, _ = tiny('resnet18', 32, batch=2)
    replay = Replay(model, ['layer2', 'layer3.1.bn1', 'layer3.0.bn2', 'layer4'])
    replay.record(input)
    assert [replay.stands_alone(i) for i in range(4)] == [True, False, False, True]


@pytest.mark.parametrize('arch', ['resnet20s', 'test_vit', 'test_resnet'])
@pytest.mark.parametrize('drop', [False, True])
def test_generators_are_left_as_by_a_standard_step(arch, drop):
    kwargs = {} if not drop else dict(drop_rate=0.3) if arch == 'resnet20s' else dict(drop_rate=0.3, drop_path_rate=0.3)
    model, input, target = tiny(arch, 32, batch=2, **kwargs)
    for blocks in ('all', 'last', 'units'):
        ends = []
        for name, config in (('standard', {}), ('alfa', dict(blocks=blocks, steps=2))):
            task = create_task(name, copy.deepcopy(model), **config)
            for seed in (1, 2):
                torch.manual_seed(seed)
                before = torch.get_rng_state()
                task(input, target)
                ends.append(torch.get_rng_state())
        assert torch.equal(ends[0], ends[2])
        assert torch.equal(ends[1], ends[3])
        assert drop != torch.equal(before, ends[1])


def test_what_is_only_compared_is_still_needed():
    """A mask made by comparing swallows NaN: the output is finite without what it was made from, and wrong."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            keep = self.gate(x) > 0
            return self.head(self.body(x) * keep)

    model, x = Masked(), torch.randn(5, 4)
    replay = Replay(model, ('body',))
    for _ in range(2):
        record = replay.record(x)
        torch.testing.assert_close(replay.run(record, {0: lambda f: f}), record.output)
    assert not replay.stands_alone(0)


class Failing(nn.Module):
    """Tells the pass that learns from others: it alone has a NaN before the tail, where it fails or runs out."""

    def __init__(self, error):
        super().__init__()
        self.body, self.head, self.error, self.left = nn.Linear(4, 4), nn.Linear(4, 2), error, 1
        self.parallel = nn.Linear(4, 4)

    def forward(self, x):
        if self.parallel(x).isnan().any() and self.left:
            self.left -= 1
            raise self.error('planted')
        return self.head(self.body(x))


def test_running_out_of_memory_while_learning_is_not_swallowed():
    replay, x = Replay(Failing(torch.OutOfMemoryError), ['body']), torch.randn(2, 4)
    with pytest.raises(torch.OutOfMemoryError):
        replay.record(x)
    replay.record(x)
    assert replay.stands_alone(0)


def test_a_pass_that_fails_on_placeholders_warns():
    replay = Replay(Failing(ValueError), ['body'])
    with pytest.warns(AlfaWarning, match=r"'body'.*planted"):
        replay.record(torch.randn(2, 4))
    assert not replay.stands_alone(0)


def test_nothing_is_learned_from_an_output_that_is_not_finite():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(3, 4)
    replay = Replay(model, ['1'])
    for batch, alone in ((x / 0, False), (x, True), (x / 0, True)):
        record = replay.record(batch)
        torch.testing.assert_close(replay.run(record, {0: lambda f: f}), record.output, equal_nan=True)
        assert replay.stands_alone(0) is alone


@pytest.mark.parametrize('blocks', ['1', 'units', 'layer3.2.bn2'])
def test_a_first_step_is_to_the_last_bit_what_a_later_one_is(blocks):
    """A resumed run learns again in its first step."""
    model, input, target = tiny(size=16, dtype=torch.float32)
    old, found = create_task('alfa', model, blocks=blocks, steps=2), []
    old(input, target)
    for task in (old, create_task('alfa', copy.deepcopy(model), blocks=blocks, steps=2)):
        task.zero_grad()
        task(input, target)['loss'].backward()
        found.append([p.grad for p in task.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize('divisor', [1, 3])
def test_what_learns_moves_nothing_and_needs_no_size_of_batch(divisor):
    """The first recorded pass is a plain one: running statistics, generators and autocast's cached weights too."""

    class Groups(nn.Module):
        def forward(self, x):
            return x.unflatten(0, (-1, divisor)).flatten(0, 1)

    model, input, _ = tiny(size=16, batch=6, dtype=torch.float32, drop_rate=0.5)
    model.layer2.append(Groups())
    plain, replay = copy.deepcopy(model), Replay(model, ['layer1', 'layer2'])
    found = []
    for call in (plain, replay.record):
        torch.manual_seed(3)
        with torch.autocast('cpu', torch.bfloat16):
            output = call(input)
        found.append(output if call is plain else output.output)
        found.append(torch.get_rng_state())
        found[-2].float().sum().backward()
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert replay.stands_alone(1)
    for a, b in zip(plain.buffers(), model.buffers(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
