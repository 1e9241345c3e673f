"""Which folder a run gets, and that it touches nothing of anyone else there."""

import json

import pytest
import torch
import yaml

from timm_alfa.errors import AlfaError, CheckpointError, ConfigError
from timm_alfa.training.checkpoint.store import CheckpointStore
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.preflight.dry_run import dry_run
from timm_alfa.training.run_dir.folder import BEST, HUB, RunFolder, choose_folder
from timm_alfa.training.run_dir.lock import LOCK, FolderLock, lock_folder
from timm_alfa.training.start import check_start
from timm_alfa.utils.files import temporary_path


def config(output, *argv):
    return parse_args(['--output', str(output), '--experiment', 'run', *argv])


def snapshot(folder):
    """Every entry below a folder, with what it holds or where it leads."""
    entries = {}
    for path in sorted(folder.rglob('*')):
        if path.is_symlink():
            entries[path] = path.readlink()
        else:
            entries[path] = path.read_bytes() if path.is_file() else None
    return entries


@pytest.fixture
def stranger(tmp_path):
    """A folder of another program: OUTPUT/EXPERIMENT of a recipe could be ~ and .docker."""
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'config.json').write_text('{"auths": {}}')
    return folder


@pytest.mark.parametrize('argv', [(), ('--resume', 'auto'), ('--resume', 'auto', '--resume-anyway')])
def test_the_folder_of_another_program_is_refused(argv, stranger, tmp_path):
    before = snapshot(tmp_path)
    message = r"run' is not empty and does not hold a run, but config.json: use another --experiment or --output"
    with FolderLock() as lock, pytest.raises(ConfigError, match=message):
        lock_folder(config(tmp_path, *argv), lock)
    with pytest.raises(ConfigError, match=message):  # what --dry-run asks
        choose_folder(config(tmp_path, '--dry-run', *argv))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('args.yaml', 'model: resnet50\namp: true\n'),  # of timm's train.py
        ('args.yaml', 'a: ['),
        ('args.yaml', ''),
        ('result.json', '{}'),
        ('last/state', ''),
        ('last/000001-update-7/weights', ''),  # not complete
    ],
)
def test_files_with_names_of_ours_are_not_yet_a_run_to_resume(name, content, stranger, tmp_path):
    path = stranger / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match='does not hold a run, but .*config.json'):
        choose_folder(config(tmp_path, '--resume', 'auto'))
    if name != 'args.yaml':  # its options would be read first
        with pytest.raises(ConfigError, match="which is not a run's folder"):
            choose_folder(parse_args(['--resume', str(stranger)]))
    with pytest.raises(ConfigError, match='already holds a run'):
        choose_folder(config(tmp_path))
    assert snapshot(tmp_path) == before


def test_folders_are_numbered_and_resumed(tmp_path):
    def choose(*argv):
        return choose_folder(parse_args(['--output', str(tmp_path), *argv])).name

    assert choose() == choose('--resume', 'auto') == 'resnet20s-alfa-digits'
    for name in ('resnet20s-alfa-digits', 'resnet20s-alfa-digits-2'):
        RunFolder(tmp_path / name).create()
        (tmp_path / name / 'args.yaml').write_text('environment: {}')
    assert choose() == 'resnet20s-alfa-digits-3'
    assert choose('--resume', 'auto') == 'resnet20s-alfa-digits-2'
    (tmp_path / 'resnet20s-alfa-digits-3').mkdir()  # of a start that ended before it was a run
    assert choose('--resume', 'auto') == 'resnet20s-alfa-digits-2'
    assert choose() == 'resnet20s-alfa-digits-4'
    (tmp_path / 'resnet20s-alfa-digits-3').rmdir()
    assert choose('--data-dir', '/x/My Images!/', '--task', 'standard') == 'resnet20s-standard-My_Images'


def test_numbered_folders_skip_those_of_other_programs(stranger, tmp_path):
    base = tmp_path / 'resnet20s-alfa-digits'
    stranger.rename(base)
    (tmp_path / f'{base.name}-2').symlink_to(tmp_path / 'nowhere')
    for argv in ((), ('--resume', 'auto')):
        assert choose_folder(parse_args(['--output', str(tmp_path), *argv])).name == f'{base.name}-3'


def test_what_a_start_left_that_ended_early_is_no_obstacle(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / LOCK).touch()
    temporary_path(folder).write_text('half')
    for argv in ((), ('--resume', 'auto')):
        assert choose_folder(config(tmp_path, *argv)) == folder
    RunFolder(folder).create()
    assert [each.name for each in folder.iterdir()] == [LOCK]


def test_a_run_in_the_folder_of_another_program_changes_nothing(runs):
    folder = runs.output / 'run'
    folder.mkdir()
    (folder / 'config.json').write_text('theirs')
    for argv in ((), ('--resume', 'auto')):
        with pytest.raises(ConfigError, match='does not hold a run, but config.json'):
            runs('--task', 'standard', '--epochs', '1', *argv)
    dry_run(runs.prepare('--task', 'standard', '--dry-run'), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {'config.json': b'theirs'}


def test_a_dry_run_refuses_a_state_with_other_options_and_writes_nothing(runs):
    runs('--task', 'standard', '--epochs', '1')
    before = snapshot(runs.output)
    check_start(runs.prepare('--task', 'standard', '--epochs', '1', '--dry-run', '--resume', 'auto'))
    check_start(runs.prepare('--task', 'standard', '--dry-run', experiment='another'))
    other = runs.prepare('--task', 'noise', '--epochs', '2', '--dry-run', '--resume', 'auto')
    with pytest.raises(CheckpointError, match='--task was standard, is noise'):
        check_start(other)
    assert snapshot(runs.output) == before


# links that somebody planted


@pytest.fixture
def target(tmp_path):
    """A folder that looks like one of states, somewhere else."""
    folder = tmp_path / 'elsewhere'
    for number in range(1, 4):
        CheckpointStore(folder, keep=9).write(number, lambda state: (state / 'file').write_text('theirs'))
    return folder


@pytest.mark.parametrize('resume', ['auto', 'RUN'])
def test_a_last_that_is_a_link_is_refused(resume, target, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'args.yaml').write_text(yaml.safe_dump({'environment': {}}))
    (folder / 'last').symlink_to(target)
    before = snapshot(tmp_path)
    options = config(tmp_path, '--resume', resume) if resume == 'auto' else parse_args(['--resume', str(folder)])
    with FolderLock() as lock, pytest.raises(CheckpointError, match=r"run/last' is a symbolic link.*Remove the link"):
        lock_folder(options, lock)
    with pytest.raises(CheckpointError, match='is a symbolic link'):
        CheckpointStore(folder / 'last').write(8, lambda state: (state / 'file').write_text('ours'))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize('exists', [True, False])
def test_a_lock_that_is_a_link_is_refused(exists, tmp_path):
    folder, elsewhere = tmp_path / 'run', tmp_path / 'elsewhere'
    folder.mkdir()
    if exists:
        elsewhere.write_text('theirs')
    (folder / LOCK).symlink_to(elsewhere)
    before = snapshot(tmp_path)
    with FolderLock() as lock, pytest.raises(ConfigError, match=r"run/.lock' is a symbolic link.*remove it"):
        lock_folder(config(tmp_path), lock)
    assert snapshot(tmp_path) == before


def test_no_file_of_a_run_is_written_through_a_link(runs, tmp_path, plots):
    """Planted under every name that a run writes, before it is resumed."""
    runs('--task', 'l_alfa', '--alfa-blocks', 'all', '--epochs', '1')
    folder, elsewhere = runs.output / 'run', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name not in (LOCK, BEST)]
    assert {'args.yaml', 'config.json', 'summary.csv', 'result.json', 'curves.png', 'eta.png', HUB} <= set(names)
    for name in names:
        (elsewhere / name).write_text('theirs')
        (folder / name).unlink()
        (folder / name).symlink_to(elsewhere / name)
    options = ('--task', 'l_alfa', '--alfa-blocks', 'all', '--epochs', '2', '--resume', 'auto', '--resume-anyway')
    assert runs(*options)['epochs_done'] == 2
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == dict.fromkeys(names, 'theirs')
    assert [name for name in names if (folder / name).is_symlink()] == [HUB]
    assert (folder / HUB).readlink().name == BEST


def test_permissions_of_a_runs_files_are_kept(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save_result({'a': 1})
    (tmp_path / 'result.json').chmod(0o600)
    folder.save_result({'a': 2})
    assert json.loads((tmp_path / 'result.json').read_text()) == {'a': 2}
    assert (tmp_path / 'result.json').stat().st_mode & 0o777 == 0o600


def test_a_name_too_long_for_a_folder_is_one_line(tmp_path):
    with pytest.raises(AlfaError, match='cannot write in .*: File name too long. Use another --output'):
        choose_folder(parse_args(['--output', str(tmp_path), '--experiment', 'x' * 300]))


def test_a_name_of_its_own_is_never_too_long(tmp_path):
    config = parse_args(['--output', str(tmp_path), '--data-dir', 'x' * 300])
    choose_folder(config).mkdir()
    assert choose_folder(config).name.endswith('x-2')


def test_the_best_weights_have_the_name_that_the_hub_looks_for(tmp_path):
    folder = RunFolder(tmp_path)
    for value in (1.0, 2.0):
        folder.save_model({'w': torch.full((2,), value)}, BEST)
        assert (tmp_path / HUB).read_bytes() == (tmp_path / BEST).read_bytes()
    assert (tmp_path / HUB).is_symlink()
