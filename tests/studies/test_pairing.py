"""Runs with the same seed are pairs: every method has the same initial weights, images and augmentation."""

import pytest
import torch

from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.setup.prepare import prepare

METHODS = {
    'standard': [],
    'standard_double': ['--standard-weight', '2'],
    'alfa': ['--alfa-bn', 'aux', '--alfa-random-start'],
    'l_alfa': ['--alfa-mode', 'joint', '--alfa-blocks', 'all'],
    'noise': [],
    'moex': [],
    'advprop': [],
    'adv_train': [],
}


def begin(method: str, seed: int):
    words = [
        '--dataset',
        'digits',
        '--train-subset',
        '96',
        '--val-fraction',
        '0.2',
        '-b',
        '32',
        '--epochs',
        '2',
        '--model-kwargs',
        'channels=(4,4,4)',
        'layers=(1,1,1)',
        '--seed',
        str(seed),
    ]
    return prepare(parse_args([*words, '--task', method.replace('_double', ''), *METHODS[method]]))


def first_epochs(run, disturb: bool):
    """Initial weights, and all batches of two epochs, with a step of training between them."""
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    batches = []
    for epoch in range(2):
        run.data.train.set_epoch(epoch)
        for input, target in run.data.train:
            batches.append((input.clone(), target.clone(), torch.as_tensor(run.data.train.last_indices).clone()))
            if disturb:
                run.wrapped.train()
                run.wrapped(input, target)['loss'].backward()
                torch.rand(7)
    return weights, batches, run.data.info.val.indices


@pytest.mark.parametrize('method', [name for name in METHODS if name != 'standard'])
def test_one_seed_gives_the_same_weights_and_batches(method):
    weights, batches, val = first_epochs(begin('standard', 3), disturb=False)
    other_weights, other_batches, other_val = first_epochs(begin(method, 3), disturb=True)
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert torch.equal(val, other_val)
    assert len(batches) == len(other_batches) == 6
    for ours, theirs in zip(batches, other_batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_another_seed_gives_other_weights_batches_and_splits():
    weights, batches, val = first_epochs(begin('standard', 3), disturb=False)
    other_weights, other_batches, other_val = first_epochs(begin('standard', 4), disturb=False)
    assert not torch.equal(weights['conv1.weight'], other_weights['conv1.weight'])
    assert not torch.equal(batches[0][2], other_batches[0][2])
    assert not torch.equal(val, other_val)
