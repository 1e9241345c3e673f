"""Two processes give the gradients of one process on the joint batch, whichever way they are wrapped."""
import os
import tempfile

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP

from timm_alfa import create_task

SETTINGS = (
    ('test_vit', 'alfa', dict(blocks='all')),
    ('test_vit', 'alfa', dict(blocks='last', grad='tail', mode='joint')),
    ('test_vit', 'l_alfa', dict(blocks='units:2')),
)
NORMED = (
    ('resnet20s', 'alfa', dict(blocks='3', bn='aux')),
    ('resnet20s', 'alfa', dict(blocks='1,3', bn='aux', mode='joint')),
    ('resnet20s', 'l_alfa', dict(blocks='last', bn='shared', every=2)),
)


def _batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, 32, 32, generator=generator), torch.randint(5, (4,), generator=generator)


def _task(arch, name, config):
    torch.manual_seed(0)
    kwargs = {'img_size': 32} if 'vit' in arch else {}
    model = timm.create_model(arch, num_classes=5, **kwargs).double().train()
    return create_task(name, model, steps=2, step_size=0.02, **config).double()  # FSDP wants one type


def _train(task, call, rows, steps=2):
    """Gradients of some steps of plain SGD, in single file, by parameter."""
    groups = [{'params': list(task.model.parameters())}, *task.extra_param_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        input, target = _batch(step)
        result = call(input[rows].double(), target[rows])
        result['loss'].backward()
        found.append([None if p.grad is None else p.grad.clone() for g in groups for p in g['params']])
        optimizer.step()
        task.post_step()
    return found


def _sharded(setting, whole):
    """FSDP2: blocks, the model and what is around it each in a group of its own; or all but the blocks in one."""
    task = _task(*setting)
    for module in (*task.model.blocks, *(() if whole else (task.model,)), task):
        fully_shard(module, mesh=init_device_mesh('cpu', (2,)))
    return task


def _gathered(grads):
    return [[g.full_tensor() if hasattr(g, 'full_tensor') else g for g in step] for step in grads]


def _worker(rank, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    torch.set_num_threads(1)
    try:
        found = {}
        for way in ('model', 'task'):
            for i, setting in enumerate(SETTINGS + NORMED):
                task = _task(*setting)
                call = task.prepare_distributed() if way == 'model' else DDP(task)
                found[way, i] = _train(task, call, slice(2 * rank, 2 * rank + 2))
        for i, setting in enumerate(SETTINGS):
            for way in ('fsdp', 'fsdp whole'):
                try:
                    task = _sharded(setting, way == 'fsdp whole')
                    found[way, i] = _gathered(_train(task, task, slice(2 * rank, 2 * rank + 2)))
                except Exception as e:
                    found[way, i] = f'{type(e).__name__}: {e}'
        torch.save(found, os.path.join(folder, f'{rank}.pt'))
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope='module')
def ranks():
    """What the two processes found: gradients by way of wrapping and setting."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, (folder,), nprocs=2)
        return [torch.load(os.path.join(folder, f'{rank}.pt')) for rank in (0, 1)]


@pytest.mark.parametrize('way', ['model', 'task'])
def test_two_processes_are_one(way, ranks):
    """timm wraps the model, accelerate the whole task; networks without batch norm agree with one process.

    With batch norm they agree where it is SyncBatchNorm, which is for GPUs only: here, only that ranks agree.
    """
    for i, setting in enumerate(SETTINGS + NORMED):
        for a, b in zip(ranks[0][way, i], ranks[1][way, i], strict=True):
            for x, y in zip(a, b, strict=True):
                assert x is not None, setting
                assert torch.equal(x, y), setting
    for i, setting in enumerate(SETTINGS):
        task = _task(*setting)
        for got, want in zip(ranks[0][way, i], _train(task, task, slice(0, 4)), strict=True):
            for x, y in zip(got, want, strict=True):
                torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('i', range(len(SETTINGS)))
@pytest.mark.parametrize('way', ['fsdp', 'fsdp whole'])
def test_sharded_processes_are_one(way, i, ranks):
    """FSDP2 on networks without batch norm."""
    if isinstance(ranks[0][way, i], str):
        pytest.fail(ranks[0][way, i])
    task = _task(*SETTINGS[i])
    for got, want in zip(ranks[0][way, i], _train(task, task, slice(0, 4)), strict=True):
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)
