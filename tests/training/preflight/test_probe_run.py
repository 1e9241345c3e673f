"""--probe: what it writes, and that it is in no run's way."""

import json

import pytest
from helpers.training_runs import TINY

from timm_alfa.errors import ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.preflight.probe_run import probe_options, probe_run
from timm_alfa.training.run_dir.folder import PROBED, choose_folder
from timm_alfa.training.run_dir.lock import FolderLock, lock_folder
from timm_alfa.training.start import check_start


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_a_probe_is_written_and_a_run_of_the_same_name_can_begin(runs, capsys):
    flags = ('--alfa-steps', '2', '--alfa-blocks', 'last')
    run = runs.prepare(*flags, '--probe')
    probe_run(run, check_start(run))
    folder = runs.output / 'run'
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    written = json.loads((folder / 'probe.json').read_text())
    assert names(folder) == sorted(PROBED)
    assert record == {'status': 'probed', **written, 'run': str(folder)}
    assert (written['steps'], written['images'], len(written['blocks'])) == (2, 16, 1)

    # the same weights and data, whatever was run in between; then a run in the same folder
    again = runs.prepare(*flags, '--probe')
    probe_run(again, check_start(again))
    assert json.loads((folder / 'probe.json').read_text()) == written
    probed = runs(*flags, '--epochs', '1')
    plain = runs(*flags, '--epochs', '1', experiment='plain')
    assert probed['val_loss'] == plain['val_loss'] and 'probe.json' in names(folder)


def test_with_resume_the_weights_of_the_run_are_probed(runs, capsys):
    runs('--task', 'standard', '--epochs', '1')
    run = runs.prepare('--task', 'standard', '--epochs', '1', '--resume', 'auto', '--probe')
    probe_run(run, check_start(run))
    assert json.loads((runs.output / 'run' / 'probe.json').read_text())['updates'] == 6


def test_a_numbered_folder_with_a_probe_is_the_next_run_s(tmp_path):
    config = parse_args([*TINY, '--output', str(tmp_path)])
    folder = choose_folder(config)
    folder.mkdir()
    for name in PROBED:
        (folder / name).touch()
    with FolderLock() as lock:
        assert lock_folder(config, lock) == folder
        assert choose_folder(config) != folder, 'it is taken now'


def test_options_of_the_search_are_the_run_s():
    assert probe_options(parse_args(['--alfa-norm', 'l2'])) == dict(steps=5, norm='l2')
    assert probe_options(parse_args(['--alfa-blocks', 'units']))['blocks'] == 'units'
    assert probe_options(parse_args(['--task', 'advprop'])) == {}
    assert probe_options(parse_args(['--task', 'standard'])) == {}


def test_it_does_not_go_with_a_dry_run():
    with pytest.raises(ConfigError, match='--probe and --dry-run cannot be combined'):
        parse_args(['--probe', '--dry-run'])
