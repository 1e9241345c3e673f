"""Which epochs are the best ones, by each metric."""

import math

import pytest

from timm_alfa.errors import AlfaWarning, ConfigError
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.options.selection import SelectionConfig
from timm_alfa.training.options.train_args import parse_args


def rows(column, values):
    return [{'epoch': at, column: value} for at, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ('metric', 'column', 'values', 'expected'),
    [
        ('top1', 'val_top1', [10, 30, 20, 30], [2, 4]),
        ('loss', 'val_loss', [3.0, 1.0, math.nan, 2.0], [2, 4]),
        ('macro_f1', 'val_macro_f1', [None, math.nan, 5.0], [3, 1]),
    ],
)
def test_of_equals_the_earlier_and_what_is_not_finite_last(metric, column, values, expected):
    selection = SelectionConfig(eval_metric=metric, num_best=2)
    assert selection.best_epochs(rows(column, values)) == expected


@pytest.mark.parametrize(
    ('epoch', 'best_epoch', 'patience', 'expected'),
    [(5, 3, 2, True), (4, 3, 2, False), (9, 1, None, False), (4, 0, 1, False), (10, 9, 5, True)],
)
def test_a_run_is_over(epoch, best_epoch, patience, expected):
    assert TrainState(epoch=epoch, best_epoch=best_epoch).is_over(10, patience) == expected


def test_options():
    with pytest.raises(ConfigError, match="unknown --eval-metric 'f1'. Known: top1, loss, balanced_accuracy, macro_f1"):
        parse_args(['--eval-metric', 'f1'])
    with pytest.warns(AlfaWarning, match='--patience: 6 epochs without a better checkpoint cannot occur in 6 epochs'):
        parse_args(['--patience', '6'])
