"""Schedules, learning rates and parameter groups are what the options say, update by update."""

import pytest
import torch
from torch import nn

from timm_alfa.errors import ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.setup.build import build_model, build_optimizer, build_schedule, learning_rate

PER_EPOCH = 352


def rates(*argv, extra=()):
    """The learning rates of every group, for each update of the run."""
    config = parse_args(['--data-dir', '/d', *argv])
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(config.optim, model, list(extra), config.optim.lr)
    schedule = build_schedule(config, optimizer, PER_EPOCH)
    used = []
    for update in range(config.epochs * PER_EPOCH):
        used.append([group['lr'] for group in optimizer.param_groups])
        if schedule is not None:
            schedule.step_update(update + 1)
    return used


def test_the_papers_schedule_exactly():
    """0.1, divided by ten after 50 and 150 epochs, linear warm-up over the first 200 updates."""
    used = [rate for rate, *_ in rates('--lr', '0.1', '--warmup-updates', '200', '--warmup-lr', '0')]
    assert used[:201] == pytest.approx([0.1 * update / 200 for update in range(201)], abs=1e-15)
    changes = [update for update in range(201, len(used)) if used[update] != used[update - 1]]
    assert changes == [50 * PER_EPOCH, 150 * PER_EPOCH]
    assert (used[changes[0]], used[changes[1]]) == (pytest.approx(0.01), pytest.approx(0.001))


def test_default_milestones_are_a_quarter_and_three_quarters():
    used = [rate for rate, *_ in rates('--lr', '1', '--epochs', '8')]
    changes = [update for update in range(1, len(used)) if used[update] != used[update - 1]]
    assert changes == [2 * PER_EPOCH, 6 * PER_EPOCH]


def test_a_groups_own_rate_follows_the_schedule():
    eta = nn.Parameter(torch.ones(3))
    used = rates('--lr', '0.1', '--epochs', '4', extra=[{'params': [eta], 'lr': 0.01, 'weight_decay': 0.0}])
    assert used[0][-1] == 0.01 and used[-1][-1] == pytest.approx(0.0001)


@pytest.mark.parametrize('sched', ['cosine', 'step', 'constant', 'tanh', 'poly', 'wsd', 'rsqrt', 'none'])
def test_every_schedule_runs(sched):
    needs = {'poly': ('--decay-rate', '1'), 'rsqrt': ('--warmup-updates', '1', '--warmup-lr', '0.5')}.get(sched, ())
    used = [rate for rate, *_ in rates('--lr', '0.5', '--epochs', '4', '--sched', sched, *needs)]
    assert all(0 <= rate <= 0.5 for rate in used) and used[0] == 0.5
    assert (used[-1] < 0.05) == (sched in ('cosine', 'tanh', 'poly', 'wsd', 'rsqrt'))


@pytest.mark.parametrize(('epochs', 'every'), [('0.5', 176), ('0.001', 1), ('1', 352)])
def test_steps_of_part_of_an_epoch(epochs, every):
    """step takes no share of the run: less than an epoch is that many updates."""
    used = [
        rate
        for rate, *_ in rates(
            '--lr', '1', '--epochs', '2', '--sched', 'step', '--decay-epochs', epochs, '--decay-rate', '0.5'
        )
    ]
    changes = [update for update in range(1, len(used)) if used[update] < used[update - 1]]
    assert changes[:3] == [every, 2 * every, 3 * every][: len(changes)] and changes


def test_wsd_takes_a_share_of_the_run():
    used = [rate for rate, *_ in rates('--lr', '1', '--epochs', '4', '--sched', 'wsd', '--decay-epochs', '0.25')]
    assert next(update for update, rate in enumerate(used) if rate < 1) == pytest.approx(3 * PER_EPOCH, abs=1)


def test_learning_rate_scales_with_the_batch():
    options = parse_args(['--data-dir', '/d']).optim
    assert learning_rate(options, 512)[0] == pytest.approx(0.2)
    adaptive = parse_args(['--data-dir', '/d', '--opt', 'adamw']).optim
    assert learning_rate(adaptive, 1024)[0] == pytest.approx(0.2)
    given = parse_args(['--lr', '0.3']).optim
    assert learning_rate(given, 512) == (0.3, 'as given')


def test_decay_leaves_out_biases_unless_requested():
    model = nn.Linear(2, 2)
    optimizers = [build_optimizer(parse_args(argv).optim, model, [], 0.1) for argv in ([], ['--no-filter-bias-and-bn'])]
    decays = [sorted({group['weight_decay'] for group in optimizer.param_groups}) for optimizer in optimizers]
    assert decays == [[0.0, 5e-4], [5e-4]]


@pytest.mark.parametrize(
    ('argv', 'part'),
    [
        (['--model-kwargs', 'no_such=1'], "has 'no_such', which is not an argument of resnet20s"),
        (['--model', 'test_vit', '--img-size', '17'], ''),
        (['--model', 'local-dir:/no/such'], 'cannot be built'),
        (['--model', 'test_vit', '--gp', 'nonsense'], 'cannot be built'),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(argv, part):
    try:
        build_model(parse_args(argv), 10)
    except ConfigError as error:
        assert part in str(error) and '\n' not in str(error)
    else:
        assert not part


def test_an_optimizer_that_cannot_be_built_is_one_line():
    options = parse_args(['--opt-kwargs', 'nesterov=True', 'dampening=0.5']).optim
    with pytest.raises(ConfigError, match="--opt 'sgd' cannot be built"):
        build_optimizer(options, nn.Linear(2, 2), [], 0.1)
