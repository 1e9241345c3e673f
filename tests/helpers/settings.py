"""Tiny models and batches that tests share, and how a task's step is compared with the plain rewriting."""

import copy

import pytest
import timm
import torch
from helpers.rewriting import norm_names, plain_step

from timm_alfa import create_task, resolve_blocks
from timm_alfa.errors import AlfaWarning

CLASSES = 5


def tiny(arch='resnet20s', size=None, batch=4, dtype=torch.float64, seed=0, **kwargs):
    """A model in training mode whose every parameter is off its special start (zeros, ones), and a batch for it."""
    torch.manual_seed(seed)
    if size and arch.startswith(('test_vit', 'vit', 'crossvit', 'pit', 'swin')):
        kwargs['img_size'] = size
    model = timm.create_model(arch, num_classes=CLASSES, **kwargs).to(dtype).train()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.05 if p.dim() == 1 else 0.01))
    side = size or 32
    return model, torch.randn(batch, 3, side, side, dtype=dtype), torch.randint(CLASSES, (batch,))


@torch.no_grad()
def move_norms_apart(task):
    """Auxiliary norms start as copies of the model's: moved apart, it matters which of them a pass goes through."""
    generator = torch.Generator().manual_seed(0)
    for parameter in task.get_extra('aux').parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator))


def state_of(task, names):
    aux = task.extras.aux if task.extras is not None and hasattr(task.extras, 'aux') else {}
    return {name: copy.deepcopy(aux[name.replace('.', '/')]) for name in names}


def grads_of(task):
    """Gradients of a task's model by timm's names; those of auxiliary norms as 'aux:NAME'."""
    grads = {k: p.grad for k, p in task.model.named_parameters()}
    if task.extras is not None and hasattr(task.extras, 'aux'):
        for key, module in task.extras.aux.items():
            grads.update({f'aux:{key.replace("/", ".")}.{k}': p.grad for k, p in module.named_parameters()})
    return grads


def gradients(model):
    return {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()}


def assert_same_grads(found, expected, atol=1e-9):
    """Those that are not expected at all (of frozen parameters) must not be there."""
    assert found.keys() >= expected.keys()
    for name, got in found.items():
        want = expected.get(name)
        if want is None:
            assert got is None or not got.any(), f'{name} has an unexpected gradient'
            continue
        assert got is not None, f'{name} has no gradient'
        torch.testing.assert_close(got, want, rtol=1e-9, atol=atol, msg=lambda m, n=name: f'{n}: {m}')


def assert_same_buffers(model, expected, atol=1e-9):
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, expected[name], rtol=1e-9, atol=atol, msg=lambda m, n=name: f'{n}: {m}')


def check_standard_step(task_name, **config):
    """A method whose strength is 0 warns, and is standard training bit for bit: gradients and running statistics."""
    model, input, target = tiny(size=16, dtype=torch.float32)
    (option,) = config
    with pytest.warns(AlfaWarning, match=f'{option}=0'):
        task = create_task(task_name, copy.deepcopy(model), **config)
    standard = create_task('standard', model)
    for each in (task, standard):
        each(input, target)['loss'].backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(task.parameters(), standard.parameters(), strict=True))
    assert_same_buffers(task.model, dict(model.named_buffers()), atol=0)


def check_step(model, input, target, criterion=None, task_name='alfa', times=1, atol=1e-9, **config):
    """One step of a task is that of the plain rewriting: loss, gradients, logits, running statistics, generator."""
    plain_model = copy.deepcopy(model)
    task = create_task(task_name, model, criterion, **config)
    names = resolve_blocks(model, config.get('blocks', 'last'))
    aux = None
    if config.get('bn') == 'aux':
        move_norms_apart(task)
        aux = state_of(task, norm_names(model))
    criterion = task.criterion
    options = {k: v for k, v in config.items() if k not in ('blocks', 'every', 'start', 'eta_lr', 'projection')}
    options.setdefault('mode', task.config.mode)
    for step in range(times):
        torch.manual_seed(step)
        expected = plain_step(plain_model, names, input, target, criterion, aux=aux, **options)
        rng = torch.get_rng_state()
        torch.manual_seed(step)
        task.zero_grad()
        result = task(input, target)
        assert torch.equal(rng, torch.get_rng_state()), 'the random generators are in another state'
        result['loss'].backward()
        torch.testing.assert_close(result['loss'].detach(), expected.loss, rtol=1e-9, atol=atol)
        torch.testing.assert_close(result['output'].detach(), expected.logits, rtol=1e-9, atol=atol)
        torch.testing.assert_close(result['loss_adv'], expected.loss_adv, rtol=1e-9, atol=atol)
        torch.testing.assert_close(result['delta_norm'].double(), expected.delta_norm.double(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(result['delta_ratio'].double(), expected.delta_ratio.double(), rtol=1e-5, atol=1e-7)
        assert_same_grads(grads_of(task), expected.grads, atol)
        assert_same_buffers(task.model, expected.buffers, atol)
        for name, module in (aux or {}).items():
            assert_same_buffers(task.extras.aux[name.replace('.', '/')], dict(module.named_buffers()), atol)
    return task, result, expected
