"""Processes give the loss and the gradients of one process on the joint batch, whichever way they are wrapped."""

import os
import tempfile

import pytest
import timm
import torch
import torch.distributed as dist
from helpers.any_model import SEGMENTATION, Segmenter
from helpers.forkserver import run_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel as DDP

from timm_alfa import create_task

BATCH = 4
WORLDS = (2, pytest.param(4, marks=pytest.mark.sweep))
SETTINGS = (
    ('test_vit', 'alfa', dict(blocks='all')),
    ('test_vit', 'alfa', dict(blocks='last', grad='tail', mode='joint')),
    ('test_vit', 'alfa', dict(blocks='1,2', gap=0.05)),
    ('test_vit', 'l_alfa', dict(blocks='units:2')),
)
ANY = (
    ('segmenter', 'alfa', dict(blocks='stem,body', **SEGMENTATION)),
    ('segmenter', 'l_alfa', dict(blocks='stem,body', **SEGMENTATION)),
)
NORMED = (
    ('resnet20s', 'alfa', dict(blocks='3', bn='aux')),
    ('resnet20s', 'alfa', dict(blocks='1,3', bn='aux', mode='joint')),
    ('resnet20s', 'l_alfa', dict(blocks='last', bn='shared', every=2)),
)
JOINT = (
    ('resnet20s', 'alfa', dict(blocks='last', bn='clean')),
    ('resnet20s', 'alfa', dict(blocks='all', bn='clean')),
    ('resnet20s', 'alfa', dict(blocks='last', bn='shared')),
    ('resnet20s', 'alfa', dict(blocks='all', bn='shared')),
    ('resnet20s', 'l_alfa', dict(blocks='units:2')),
)


class JointBatchNorm(torch.nn.BatchNorm2d):
    """Batch norm over the batches of all processes: what SyncBatchNorm, which refuses CPUs, does on GPUs."""

    def forward(self, input):
        count = input.numel() // input.shape[1] * dist.get_world_size()
        mean, square = all_reduce(torch.stack([input.sum((0, 2, 3)), input.square().sum((0, 2, 3))])) / count
        variance = square - mean.square()  # in double precision
        if self.track_running_stats:
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return input * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def _batch(step, side):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, 3, side, side, generator=generator), torch.randint(5, (BATCH,), generator=generator)


def _rows(rank, world):
    return slice(rank * BATCH // world, (rank + 1) * BATCH // world)


def _model(arch, joint):
    torch.manual_seed(0)
    kwargs = {'img_size': 32} if 'vit' in arch else {}
    model = Segmenter() if arch == 'segmenter' else timm.create_model(arch, num_classes=5, **kwargs)
    for norm in [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)] if joint else ():
        norm.__class__ = JointBatchNorm
    return model.double().train()


def _task(arch, name, config, joint=False):
    return create_task(name, _model(arch, joint), steps=2, step_size=0.02, **config).double()  # FSDP wants one type


def _train(task, call, rows, steps=2):
    """Losses and gradients by parameter of some steps of plain SGD, and the running statistics they leave."""
    groups = [{'params': list(task.model.parameters())}, *task.extra_param_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    losses, grads = [], []
    for step in range(steps):
        optimizer.zero_grad()
        input, target = _batch(step, 32 if hasattr(task.model, 'patch_embed') else 16)
        result = call(input[rows].double(), target[rows])
        result['loss'].backward()
        losses.append(result['loss'].detach())
        grads += [None if p.grad is None else _whole(p.grad) for g in groups for p in g['params']]
        optimizer.step()
        task.post_step()
    statistics = [buffer for name, buffer in task.named_buffers() if '.running_' in name]
    return {'losses': losses, 'grads': grads, 'statistics': statistics}


def _whole(grad):
    return grad.full_tensor() if hasattr(grad, 'full_tensor') else grad.clone()


def _sharded(setting, whole):
    """FSDP2: blocks, the model and what is around it each in a separate group; or all but the blocks in one."""
    task = _task(*setting)
    for module in (*task.model.blocks, *(() if whole else (task.model,)), task):
        fully_shard(module, mesh=init_device_mesh('cpu', (dist.get_world_size(),)))
    return task, task


def _wrapped(way, setting, joint=False):
    if way.startswith('fsdp'):
        return _sharded(setting, way == 'fsdp whole')
    task = _task(*setting, joint=joint)
    return task, task.prepare_distributed() if way == 'model' else DDP(task)


def _trials():
    """(way, setting, whether norms are joint), each under the name of its result."""
    yield from (
        (f'{way} {i}', way, setting, False)
        for way in ('model', 'task', 'fsdp', 'fsdp whole')
        for i, setting in enumerate(SETTINGS + (ANY + NORMED if 'fsdp' not in way else ()))
    )
    yield from ((f'joint {i}', 'task', setting, True) for i, setting in enumerate(JOINT))


def _worker(rank, world, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world)
    torch.set_num_threads(1)
    try:
        found = {}
        for name, way, setting, joint in _trials():
            try:
                found[name] = _train(*_wrapped(way, setting, joint), _rows(rank, world))
            except Exception as e:
                found[name] = f'{type(e).__name__}: {e}'
        torch.save(found, os.path.join(folder, f'{rank}.pt'))
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope='module', params=WORLDS)
def ranks(request):
    """What each of some processes found."""
    with tempfile.TemporaryDirectory() as folder:
        run_ranks(_worker, (request.param, folder), request.param)
        return [torch.load(os.path.join(folder, f'{rank}.pt')) for rank in range(request.param)]


@pytest.fixture(scope='module')
def alone():
    """What one process finds on the joint batch, by setting."""

    def train(setting):
        task = _task(*setting)
        return _train(task, task, slice(None))

    return {str(setting): train(setting) for setting in SETTINGS + ANY + JOINT}


def _found(ranks, name):
    for rank, found in enumerate(ranks):
        if isinstance(found[name], str):
            pytest.fail(f'process {rank}: {found[name]}')
    return [found[name] for found in ranks]


def _check_agreement(found):
    for other in found[1:]:
        for x, y in zip(found[0]['grads'], other['grads'], strict=True):
            assert x is not None and torch.equal(x, y)


def _check_equality(found, want, tolerance):
    for got in found:
        assert got['grads'] and len(got['statistics']) == len(want['statistics'])
        torch.testing.assert_close(got['grads'], want['grads'], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(got['statistics'], want['statistics'], rtol=tolerance, atol=tolerance)
    losses = [torch.stack(each).mean() for each in zip(*(got['losses'] for got in found), strict=True)]
    torch.testing.assert_close(losses, want['losses'], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('way', ['model', 'task'])
def test_processes_are_one(way, ranks, alone):
    """timm wraps the model, accelerate the whole task; with norms of each process's own, only that ranks agree."""
    for i, setting in enumerate(SETTINGS + ANY + NORMED):
        found = _found(ranks, f'{way} {i}')
        _check_agreement(found)
        if setting not in NORMED:
            _check_equality(found, alone[str(setting)], 1e-6)


@pytest.mark.parametrize('i', range(len(SETTINGS)))
@pytest.mark.parametrize('way', ['fsdp', 'fsdp whole'])
def test_sharded_processes_are_one(way, i, ranks, alone):
    """FSDP2 on networks without batch norm."""
    _check_equality(_found(ranks, f'{way} {i}'), alone[str(SETTINGS[i])], 1e-6)


@pytest.mark.parametrize('i', range(len(JOINT)))
def test_processes_with_joint_norms_are_one(i, ranks, alone):
    """Batch norm whose statistics, and the gradients through them, are those of all processes' images."""
    found = _found(ranks, f'joint {i}')
    _check_agreement(found)
    assert found[0]['statistics']
    _check_equality(found, alone[str(JOINT[i])], 1e-5)
