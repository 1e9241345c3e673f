"""YAML of options from somebody else: a recipe, and the args.yaml of a run folder."""

import os

import pytest
import yaml

from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.options.validate_args import parse_args as parse_validate_args


@pytest.fixture(params=['recipe', 'run'])
def options_file(request, tmp_path):
    """A file and the arguments that make train.py read it: a recipe, or the args.yaml of a folder to resume."""
    folder = tmp_path / 'handed_over'
    folder.mkdir()
    file = folder / ('recipe.yaml' if request.param == 'recipe' else 'args.yaml')
    return file, (['--config', str(file)] if request.param == 'recipe' else ['--resume', str(folder)])


@pytest.mark.parametrize(
    ('text', 'part'),
    [
        ('lr: 0.1\nepochs: 3\nlr: 9\n', "line 3 repeats 'lr'"),
        ('alfa-steps: 1\nalfa_steps: 9\n', "repeats 'alfa_steps'"),
        ('model_kwargs: {stem_width: 16, stem_width: 32}\n', "line 1 repeats 'stem_width'"),
        ('a: &a [1, 1]\nb: &b [*a, *a]\n', 'line 2 has an alias, *a'),
        ('lr: &rate 0.1\nwarmup_lr: *rate\n', 'line 2 has an alias, *rate'),
        ('<<: {lr: 9}\n', "unknown option '<<'"),
        ('model: !!python/object/apply:os.system [exit]\n', 'line 1 has a tag'),
        ('seed: !!binary aGVsbG8=\n', 'line 1 has a tag'),
        ('[' * 5000, 'nested deeper than 20 levels'),
        ('model_kwargs: ' + '{a: ' * 500, 'nested deeper than 20 levels'),
        ('seed: 0x' + 'f' * 5000 + '\n', 'a number that is too large'),
        ('model: ' + 'x' * 300_000 + '\n', 'larger than 256 KiB'),
        ('? [model]\n: resnet20s\n', 'a key that is not text'),
    ],
)
def test_what_is_not_plain_data_is_refused(options_file, refused, text, part):
    file, argv = options_file
    file.write_text(text)
    message = refused('train.py', *argv)
    assert part in message and str(file) in message, message


@pytest.mark.parametrize('value', ['1e-3', '1E-3', '0.1e-2', '.1e-2'])
def test_numbers_with_an_exponent_are_numbers(options_file, value):
    file, argv = options_file
    file.write_text(f'opt: adamp\nopt_kwargs: {{delta: {value}}}\nlr: {value}\n')
    config = parse_args(argv)
    assert config.optim.opt_kwargs == {'delta': 1e-3} and config.optim.lr == 1e-3


def test_text_that_looks_like_a_number_survives_args_yaml(runs):
    runs('--task', 'standard', '--epochs', '1', experiment='1e5')
    text = (runs.output / '1e5' / 'args.yaml').read_text()
    assert yaml.safe_load(text)['experiment'] == '1e5'
    assert parse_args(['--config', str(runs.output / '1e5' / 'args.yaml')]).run.experiment == '1e5'


def test_a_pipe_is_not_waited_for(options_file, refused):
    file, argv = options_file
    os.mkfifo(file)
    message = refused('train.py', *argv)
    assert 'not a regular file' in message or "not a run's folder" in message


def test_validate_does_not_wait_for_a_pipe(make_run):
    run = make_run()
    (run / 'args.yaml').unlink()
    os.mkfifo(run / 'args.yaml')
    assert parse_validate_args(['--checkpoint', str(run)]).data.dataset == ''


def test_validate_refuses_a_runs_file_that_is_not_plain_data(make_run, refused):
    run = make_run()
    (run / 'args.yaml').write_text('dataset: digits\ndataset: folder\n')
    message = refused('validate.py', '--checkpoint', run)
    assert "line 2 repeats 'dataset'" in message and str(run / 'args.yaml') in message
