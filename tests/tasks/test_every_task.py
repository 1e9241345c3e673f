"""What every method keeps to, walked over the registry."""

import copy
from dataclasses import fields
from importlib.resources import files

import pytest
import torch
import torch.distributed as dist
from helpers.forkserver import CONTEXT, run_ranks
from helpers.settings import CLASSES, tiny
from helpers.task_table import TABLE
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from timm_alfa import create_task, list_tasks
from timm_alfa.errors import ConfigError
from timm_alfa.tasks import TASKS

EVERY = pytest.mark.parametrize('name', list_tasks())
HEADINGS = ['How to use', 'Options', 'Cost', 'When it does not help', 'Source']


def make(name, model, criterion=None, **config):
    return create_task(name, model, criterion, **{**TABLE[name], **config})


def slots(model):
    """Attributes, hooks and flags that a method might leave on modules."""
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks')
    return [
        (
            name,
            sorted(vars(module)),
            [len(getattr(module, h)) for h in hooks],
            module.training,
            getattr(module, 'track_running_stats', None),
            getattr(module, 'grad_checkpointing', None),
        )
        for name, module in model.named_modules()
    ]


def test_the_table_has_every_method():
    assert sorted(TABLE) == list_tasks()


@EVERY
def test_a_step_trains_the_model_and_leaves_it_plain(name):
    model, input, target = tiny(size=16)
    before, keys, left = copy.deepcopy(model.state_dict()), list(model.state_dict()), slots(model)
    task = make(name, model)
    optimizer = torch.optim.SGD([*model.parameters(), *_own(task)], 0.1)
    result = task(input, target)
    result['loss'].backward()
    optimizer.step()
    task.post_step()
    assert slots(model) == left
    assert list(task.get_eval_model().state_dict()) == keys
    assert result['output'].shape == (4, CLASSES)
    assert all(not v.requires_grad for k, v in result.items() if k not in ('loss', 'output'))
    still = [k for k, p in model.named_parameters() if torch.equal(p, before[k])]
    assert not still
    assert all(g.keys() >= {'params', 'weight_decay'} for g in task.extra_param_groups())


@EVERY
def test_an_output_that_is_not_logits_is_refused(name):
    model, input, target = tiny(size=16)
    model.forward, forward = lambda x: (forward(x), 0), model.forward
    with pytest.raises(ConfigError, match='returns a tuple and not its logits'):
        make(name, model)(input, target)


@EVERY
def test_nothing_stays_after_an_error(name):
    def failing(output, target):
        raise RuntimeError('planted')

    model, input, target = tiny(size=16)
    left = slots(model)
    task = make(name, model, failing)
    with pytest.raises(RuntimeError, match='planted'):
        task(input, target)
    assert slots(model) == left


@EVERY
def test_in_eval_mode_it_is_the_plain_pass(name):
    model, input, target = tiny(size=16)
    task = make(name, model)
    task.eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    result = task(input, target)
    assert torch.equal(result['output'], model(input))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@EVERY
def test_soft_targets_that_are_certain_are_hard_targets(name):
    model, input, target = tiny(size=16)
    soft = nn.functional.one_hot(target, CLASSES).double()
    values = []
    for given in (target, soft):
        torch.manual_seed(1)
        task = make(name, copy.deepcopy(model), nn.CrossEntropyLoss())
        result = task(input, given)
        result['loss'].backward()
        values.append((result['loss'].detach(), next(task.model.parameters()).grad))
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-12)


@EVERY
def test_gradients_accumulate(name):
    model, input, target = tiny(size=16)
    torch.manual_seed(1)
    task = make(name, copy.deepcopy(model))
    for _ in range(2):
        (task(input, target)['loss'] / 2).backward()
    torch.manual_seed(1)
    single = make(name, copy.deepcopy(model))
    total = []
    for _ in range(2):
        single.zero_grad()
        single(input, target)['loss'].backward()
        total.append([p.grad.clone() for p in single.model.parameters()])
    for p, a, b in zip(task.model.parameters(), *total, strict=True):
        torch.testing.assert_close(p.grad, (a + b) / 2, rtol=1e-9, atol=1e-12)


@EVERY
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast_the_loss_is_about_the_same(name, dtype):
    model, input, target = tiny(size=16, batch=8, dtype=torch.float32)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        task = make(name, copy.deepcopy(model))
        with torch.autocast('cpu', dtype, enabled=enabled):
            result = task(input, target)
        (result['loss'] * (2.0**10 if enabled else 1)).backward()
        assert all(torch.isfinite(p.grad).all() for p in task.model.parameters())
        losses.append(result['loss'].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@EVERY
def test_compiled_it_is_the_same(name):
    model, input, target = tiny(size=16)
    results = []
    for compiles in (False, True):
        torch.manual_seed(1)
        task = make(name, copy.deepcopy(model))
        if compiles:
            torch._dynamo.reset()
            task.compile(backend='eager')
        results.append([])
        for _ in range(2):
            task.zero_grad()
            loss = task(input, target)['loss']
            loss.backward()
            results[-1].append(
                (loss.detach(), [p.grad.clone() for p in task.parameters()], [b.clone() for b in task.buffers()])
            )
    torch.testing.assert_close(results[1], results[0], rtol=1e-7, atol=1e-9)


@EVERY
def test_state_is_restored(name):
    model, input, target = tiny(size=16)
    task = make(name, model)
    for _ in range(2):
        task(input, target)['loss'].backward()
        task.post_step()
    other = make(name, tiny(size=16, seed=1)[0])
    other.load_checkpoint_state(copy.deepcopy(model.state_dict()), copy.deepcopy(task.get_task_state()))
    assert other.updates == 2
    for a, b in zip(task.state_dict().items(), other.state_dict().items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])


@EVERY
def test_unknown_options_are_refused_with_the_known_ones(name):
    with pytest.raises(ConfigError, match="unknown option 'stepz'"):
        make(name, tiny(size=16)[0], stepz=3)


@EVERY
def test_the_card_says_it_all(name):
    card = files('timm_alfa').joinpath('tasks', 'cards', f'{name}.md').read_text(encoding='utf-8')
    assert [line.removeprefix('## ') for line in card.splitlines() if line.startswith('## ')] == HEADINGS
    assert f"'{name}'" in card
    assert f'--task {name}' in card
    for field in fields(TASKS[name].config):
        assert f'`{field.name}`' in card, f'the card of {name} is silent about {field.name}'


# two processes


def _rank(rank, file, results):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{file}', rank=rank, world_size=2)
    for name in list_tasks():
        for whole in (True, False):
            model, input, target = tiny(size=16, batch=8)
            part = slice(rank * 4, rank * 4 + 4)
            alone = make(name, copy.deepcopy(model))
            torch.manual_seed(rank)
            alone(input[part], target[part])['loss'].backward()
            task = make(name, model)
            call = task
            if whole:
                call = DistributedDataParallel(task, broadcast_buffers=False)
            else:
                task.prepare_distributed()
            torch.manual_seed(rank)
            call(input[part], target[part])['loss'].backward()
            for (key, p), q in zip(task.model.named_parameters(), alone.model.parameters(), strict=True):
                dist.all_reduce(q.grad)
                torch.testing.assert_close(p.grad, q.grad / 2, rtol=1e-9, atol=1e-12, msg=lambda m, k=key: f'{k}: {m}')
            for p, q in zip(_own(task), _own(alone), strict=True):
                dist.all_reduce(q.grad)
                torch.testing.assert_close(p.grad, q.grad / 2, rtol=1e-9, atol=1e-12)
        results.put((rank, name))
    dist.barrier()
    dist.destroy_process_group()


def _own(task):
    return [p for group in task.extra_param_groups() for p in group['params']]


def test_two_processes_train_on_the_mean_of_their_gradients(tmp_path):
    results = CONTEXT.SimpleQueue()
    run_ranks(_rank, (str(tmp_path / 'rendezvous'), results), 2)
    done = [results.get() for _ in range(2 * len(list_tasks()))]
    assert sorted(done) == sorted((rank, name) for rank in range(2) for name in list_tasks())
