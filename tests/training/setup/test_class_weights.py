"""Weights of classes: from their frequencies as scikit-learn computes them, from files, and in every loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.settings import CLASSES, check_step, tiny
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from timm_alfa.errors import ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.setup.build import build_criterion
from timm_alfa.training.setup.class_weights import balanced_weights, read_weights_of_classes

WEIGHTS = torch.tensor([0.2, 3.0, 1.0, 0.5, 0.3])


def test_balanced_weights_are_scikit_learns():
    targets = np.array([0] * 7 + [2] * 2 + [3])
    weights = balanced_weights(torch.from_numpy(targets), 5)
    expected = compute_class_weight('balanced', classes=np.array([0, 2, 3]), y=targets)
    np.testing.assert_allclose(weights[[0, 2, 3]], expected, rtol=1e-6)
    assert weights[[1, 4]].tolist() == [1, 1]  # no image has these classes
    assert weights[targets].mean() == pytest.approx(1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_the_loss_is_a_weighted_mean(smoothing):
    """Also of smoothed targets, written out."""
    criterion = build_criterion(parse_args(['--smoothing', str(smoothing), '--class-weights', 'auto']), WEIGHTS)
    logits, target = torch.randn(6, CLASSES), torch.tensor([0, 1, 1, 2, 4, 3])
    soft = (1 - smoothing) * F.one_hot(target, CLASSES) + smoothing / CLASSES
    each = -(soft * WEIGHTS * F.log_softmax(logits, -1)).sum(-1)
    torch.testing.assert_close(criterion(logits, target), each.sum() / WEIGHTS[target].sum())


def test_mixed_targets_are_weighted():
    criterion = build_criterion(parse_args(['--mixup', '1', '--smoothing', '0.1', '--class-weights', 'auto']), WEIGHTS)
    logits, soft = torch.randn(6, CLASSES), torch.rand(6, CLASSES).softmax(-1)
    expected = -(soft * WEIGHTS * F.log_softmax(logits, -1)).sum(-1).mean()
    torch.testing.assert_close(criterion(logits, soft), expected)


def test_search_and_both_losses_are_weighted():
    model, input, target = tiny(size=16)
    check_step(model, input, target, nn.CrossEntropyLoss(WEIGHTS.double()), blocks='2', steps=2, step_size=0.01)


@pytest.mark.parametrize(
    ('text', 'names'),
    [('[1, 2.5, 0.5]', ()), ('{b: 2.5, c: 0.5, a: 1}', ('a', 'b', 'c')), ('{0: 1, 2: 0.5, 1: 2.5}', ())],
)
def test_files(tmp_path, text, names):
    file = tmp_path / 'weights.yaml'
    file.write_text(text)
    assert read_weights_of_classes(str(file), 3, names).tolist() == [1, 2.5, 0.5]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[1, 2]', 'holds 2 weights: it needs one for each of 3 classes'),
        ('7', 'holds neither a list nor a mapping'),
        ('[1, 0, 2]', 'has 0 for class bat: it must be a number above 0'),
        ('[1, x, 2]', "has 'x' for class bat"),
        ('{ant: 1, bta: 1}', r"has the unknown class 'bta'. Did you mean 'bat'\?"),
        ('{ant: 1, bat: 1}', "lacks 1 classes, such as 'cat'"),
        ('[1', 'which cannot be used: line 1 is not valid YAML'),
        (None, 'which cannot be read: No such file or directory. Pass auto, or a YAML file'),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    file = tmp_path / 'weights.yaml'
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_weights_of_classes(str(file), 3, ('ant', 'bat', 'cat'))


def test_a_run_is_told_its_weights(runs):
    """Of the images that it trains on, after --train-subset."""
    run = runs.prepare('--class-weights', 'auto', '--task', 'alfa')
    targets = run.data.train.subset.source.targets[run.data.train.subset.indices]
    assert torch.equal(run.task.criterion.weight, balanced_weights(targets, 10))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ConfigError, match='--class-weights and --bce-loss cannot be combined'):
        parse_args(['--class-weights', 'auto', '--bce-loss'])
