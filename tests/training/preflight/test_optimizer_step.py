"""Every optimizer and schedule that timm lists works, or is refused in one line before anything is written."""

import pytest
import torch
from timm.optim import get_optimizer_info, list_optimizers

from timm_alfa.errors import ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.preflight.optimizer_step import try_optimizer

COMPILES = ('kron',)  # on a CPU, too: that takes a compiler and a minute


@pytest.mark.parametrize('name', [name for name in list_optimizers() if not name.startswith(COMPILES)])
def test_every_optimizer_works_or_says_why_not(name):
    try:
        try_optimizer(parse_args(['--opt', name]).optim, torch.device('cpu'))
    except ConfigError as error:
        reason = 'second derivatives' if get_optimizer_info(name).second_order else 'CUDA required|install'
        assert len(error.errors) == 1 and any(part in str(error) for part in reason.split('|')), error
        assert name == 'adahessian' or name.startswith(('fused', 'bnb'))


def test_an_optimizer_that_fails_in_a_step_is_one_line(monkeypatch):
    def step(self, closure=None):
        raise RuntimeError('it needs a closure\nand more')

    monkeypatch.setattr(torch.optim.SGD, 'step', step)
    with pytest.raises(ConfigError, match=r"^--opt 'sgd' fails in a step: it needs a closure\. Use another"):
        try_optimizer(parse_args([]).optim, torch.device('cpu'))


def test_the_schedule_that_no_update_count_drives_is_refused():
    with pytest.raises(ConfigError, match="unknown --sched 'plateau'. Known: multistep"):
        parse_args(['--sched', 'plateau'])
