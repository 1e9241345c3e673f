"""Any valid combination of options trains two updates and leaves a run that loads; an invalid one says why."""

import tempfile
import warnings
from pathlib import Path

import pytest
import timm
import torch
from helpers.training_runs import Runs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from timm_alfa.errors import ConfigError

FLAGS = {
    'common': (
        ('--model-ema',),
        ('--mixup', '0.3'),
        ('--cutmix', '1', '--bce-loss'),
        ('--smoothing', '0.1'),
        ('--drop', '0.3'),
        ('--drop-path', '0.2'),
        ('--layer-decay', '0.7'),
        ('--clip-grad', '0.5'),
        ('--clip-grad', '0.1', '--clip-mode', 'agc'),
        ('--grad-accum-steps', '3'),
        ('--channels-last',),
        ('--freeze-bn',),
        ('--torchcompile', 'eager'),
        ('--opt', 'adamw'),
        ('--opt', 'lamb', '--opt-eps', '1e-5'),
        ('--sched', 'cosine'),
        ('--warmup-updates', '1'),
        ('--val-fraction', '0.3'),
        ('--no-filter-bias-and-bn',),
        ('--reprob', '0.5'),
        ('--in-chans', '1'),
        ('--bce-loss', '--bce-sum'),
        ('--loader', 'timm', '--color-jitter', '0.2'),
        ('--mean', '0.3'),
        ('--no-aug',),
        ('--opt', 'muon'),
    ),
    'alfa': (
        ('--alfa-blocks', '2,4'),
        ('--alfa-steps', '1'),
        ('--alfa-norm', 'l2', '--alfa-eps', '0.1'),
        ('--alfa-random-start',),
        ('--alfa-reduction', 'mean'),
        ('--alfa-grad', 'tail'),
        ('--alfa-bn', 'aux'),
        ('--alfa-bn', 'shared'),
        ('--alfa-mode', 'joint', '--alfa-blocks', 'all'),
        ('--alfa-every', '2'),
        ('--alfa-start', '1'),
        ('--alfa-weight', '0.5'),
    ),
}
BASE = ('--train-subset', '36', '-b', '16', '--epochs', '1')


def pick(group):
    return st.lists(st.sampled_from(FLAGS[group]), max_size=4, unique_by=lambda words: words[0])


@st.composite
def options(draw):
    task = draw(st.sampled_from(('standard', 'alfa', 'l_alfa')))
    words = ['--task', task, '--model', draw(st.sampled_from(('test_resnet', 'test_efficientnet', 'test_vit')))]
    if task == 'l_alfa':
        words += ['--alfa-blocks', 'all']
    for chosen in draw(pick('common')) + (draw(pick('alfa')) if task == 'alfa' else []):
        words += chosen
    return words


SOME = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)


@SOME
@given(options())
def test_legal_options_train(words):
    check_that_it_trains(words)


@pytest.mark.sweep
@settings(SOME, max_examples=40)
@given(options())
def test_more_legal_options_train(words):
    check_that_it_trains(words)


def check_that_it_trains(words):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        runs = Runs(Path(folder))
        try:
            record = runs(*BASE, *words)
        except ConfigError as error:
            assert error.errors and '\n' not in error.errors[0]
            return
        assert record['epochs_done'] == 1 and record['skipped_updates'] == 0
        weights = runs.weights('run', 'model_best.safetensors')
        assert all(value.isfinite().all() for value in weights.values())
        model = timm.create_model(f'local-dir:{Path(folder) / "run"}', pretrained=True)
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items() if key in weights)


ONE_EPOCH = ('--task', 'standard', '--train-subset', '36', '--epochs', '1', '--sched', 'constant')
PLAIN = {}  # the record and the weights of the run without further options


@pytest.mark.parametrize('words', FLAGS['common'], ids=lambda words: ' '.join(words))
def test_each_option_changes_the_run(words, runs):
    """No flag is parsed and never read: the weights, or what is reported, differ from the run without it."""
    if not PLAIN:
        PLAIN.update(record=runs(*ONE_EPOCH, experiment='plain'), weights=runs.weights('plain'))
    other = runs(*ONE_EPOCH, *words, experiment='other')
    plain, first, second = PLAIN['record'], PLAIN['weights'], runs.weights('other')
    same = first.keys() == second.keys() and all(
        first[key].shape == second[key].shape and torch.equal(first[key], second[key]) for key in first
    )
    if words[0] in ('--torchcompile', '--channels-last'):
        assert plain['val_loss'] == pytest.approx(other['val_loss'], rel=1e-2)
    else:
        assert not same


def test_frozen_norms_stay_as_they_are(runs):
    runs('--task', 'alfa', '--freeze-bn', '--epochs', '1')
    weights = runs.weights('run')
    means = [value for key, value in weights.items() if 'running_mean' in key]
    assert means and not any(value.any() for value in means)


def test_a_short_last_window_weighs_as_much(runs):
    """36 images in batches of 8 and windows of 3: updates of 3 and 1 batches. The second is that of a mean over 8."""
    run = runs.prepare(
        '--task',
        'standard',
        '--train-subset',
        '36',
        '-b',
        '8',
        '--grad-accum-steps',
        '3',
        '--epochs',
        '1',
        '--no-aug',
        '--model',
        'test_vit',
        '--opt',
        'momentum',
        '--momentum',
        '0',
        '--weight-decay',
        '0',
        '--sched',
        'none',
    )
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    from timm_alfa.training.train import train

    batches = [(input.clone(), target.clone()) for input, target in run.data.train]
    train(run)
    from timm_alfa.training.setup.build import build_model

    model = build_model(run.config, 10)
    model.load_state_dict(weights)
    for window in (batches[:3], batches[3:]):
        model.zero_grad()
        input, target = (torch.cat(parts) for parts in zip(*window, strict=True))
        torch.nn.functional.cross_entropy(model.train()(input), target).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= run.lr * parameter.grad
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-6)
