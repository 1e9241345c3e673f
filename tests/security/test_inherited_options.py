"""What a recipe or a run folder decides beyond the run itself: it is reported, or has to be typed."""

import logging

import pytest
import yaml

from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.options.validate_args import parse_args as parse_validate_args

OUTSIDE = dict(
    model='hf-hub:stranger/model',
    pretrained=True,
    initial_checkpoint='/home/me/private.pth',
    data_dir='/home/me/private',
    class_map='/home/me/names.txt',
)


@pytest.fixture
def run_folder(tmp_path):
    """A run folder from somebody else with the given options."""

    def make(**options):
        folder = tmp_path / 'handed_over'
        folder.mkdir()
        (folder / 'args.yaml').write_text(yaml.safe_dump({**options, 'environment': {}}))
        return folder

    return make


@pytest.fixture
def log(caplog, monkeypatch):
    """The lines that are logged."""
    monkeypatch.setattr(logging.getLogger('timm_alfa'), 'propagate', True)
    caplog.set_level(logging.INFO, 'timm_alfa')
    return lambda: [record.getMessage() for record in caplog.records]


def flags(options):
    for key, value in options.items():
        flag = '--' + key.replace('_', '-')
        yield flag if value is True else f'{flag} {value}'


def test_a_resumed_run_says_what_it_reads_elsewhere(run_folder, log):
    folder = run_folder(**OUTSIDE)
    config = parse_args(['--resume', str(folder)])
    assert config.data.data_dir == OUTSIDE['data_dir'], 'an ordinary --resume needs no retyping'
    assert log() == [f"from '{folder / 'args.yaml'}': {line}" for line in flags(OUTSIDE)]


def test_a_folder_beside_the_dataset_of_a_recipe_is_explained(tmp_path, log):
    file = tmp_path / 'recipe.yaml'
    file.write_text('dataset: hfds/somewhere\n')
    assert parse_args(['--config', str(file), '--data-dir', 'pets']).data.name == 'hfds/somewhere'
    hint = "kept in --data-dir pets; add --dataset '' to use that folder of images instead"
    assert log() == [f"from '{file}': --dataset hfds/somewhere, {hint}"]
    assert parse_args(['--config', str(file), '--data-dir', 'pets', '--dataset', '']).data.name == 'pets'
    assert len(log()) == 1


def test_a_recipe_says_what_it_reads_and_writes_elsewhere(tmp_path, log):
    options = dict(**OUTSIDE, output='/home/me/.config', log_with=['wandb'], dataset_download=True)
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump(options))
    config = parse_args(['--config', str(file)])
    assert config.run.log_with == ('wandb',) and config.data.dataset_download
    lines = log()
    for line in flags({**options, 'log_with': 'wandb'}):
        assert f"from '{file}': {line}" in lines
    assert len(lines) == len(options)


def test_what_is_typed_or_stays_inside_is_not_reported(run_folder, log):
    folder = run_folder(model='resnet20s', dataset='digits', data_dir='/home/me/private', lr=0.1, output='/home/me')
    parse_args(['--resume', str(folder), '--data-dir', ''])
    assert log() == []


def test_a_resumed_run_contacts_no_service_and_downloads_no_data_unasked(run_folder, log):
    folder = run_folder(log_with=['wandb', 'trackio'], dataset_download=True, dataset='torch/cifar10', data_dir='d')
    config = parse_args(['--resume', str(folder)])
    assert config.run.log_with is None and config.data.dataset_download is False
    file = folder / 'args.yaml'
    assert log() == [
        f"from '{file}': --dataset torch/cifar10",
        f"from '{file}': --data-dir d",
        f"not taken from '{file}': --dataset-download; pass it again to keep it",
        f"not taken from '{file}': --log-with wandb trackio; pass it again to keep it",
    ]
    typed = parse_args(['--resume', str(folder), '--log-with', 'tensorboard', '--dataset-download'])
    assert typed.run.log_with == ('tensorboard',) and typed.data.dataset_download


@pytest.mark.parametrize('options', [{'resume': 'auto'}, {'resume': 'RUN'}, {'resume_anyway': True}])
def test_a_recipe_resumes_no_run_of_mine(options, refused, tmp_path):
    mine = tmp_path / 'output' / 'mine'
    mine.mkdir(parents=True)
    file = tmp_path / 'recipe.yaml'
    options = {key: str(mine) if value == 'RUN' else value for key, value in options.items()}
    file.write_text(yaml.safe_dump({'experiment': 'mine', **options}))
    (key,) = options
    message = refused('train.py', '--config', file)
    assert message == f"'{key}' in {file}: a run is resumed only by --{key.replace('_', '-')} on the command line."


def test_validate_says_where_a_runs_data_are(make_run, log):
    run = make_run()
    (run / 'args.yaml').write_text(yaml.safe_dump(dict(data_dir='/home/me/private', class_map='/home/me/names.txt')))
    config = parse_validate_args(['--checkpoint', str(run)])
    assert config.data.data_dir == '/home/me/private'
    file = run / 'args.yaml'
    assert log() == [f"from '{file}': --data-dir /home/me/private", f"from '{file}': --class-map /home/me/names.txt"]


def test_control_characters_of_a_strangers_options_are_escaped(run_folder, capfd):
    from timm_alfa.utils.console import setup_logging

    folder = run_folder(data_dir='/data\x1b[2J\x1b[1A\u202e')
    setup_logging()
    parse_args(['--resume', str(folder)])
    shown = capfd.readouterr().err
    assert r'/data\x1b[2J\x1b[1A\u202e' in shown and '\x1b' not in shown


def test_control_characters_in_a_traceback_are_escaped(capsys):
    from timm_alfa.training.exit import run_main

    def main():
        raise ValueError('\x1b[2J\u202e')

    with pytest.raises(SystemExit):
        run_main(main)
    shown = capsys.readouterr().err
    assert 'ValueError' in shown and '\x1b' not in shown and '\u202e' not in shown
