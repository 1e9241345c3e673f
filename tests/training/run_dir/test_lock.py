"""One run, one folder: another start gets an error."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from timm_alfa.errors import AlfaWarning, ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.run_dir import lock as lock_module
from timm_alfa.training.run_dir.lock import LOCK, FolderLock, lock_folder

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], 'a') as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print('held', flush=True)
    time.sleep(600)
"""


def config(tmp_path, *argv):
    return parse_args(['--output', str(tmp_path), *argv])


@pytest.fixture
def hold():
    """Locks a folder in another process."""
    started = []

    def start(path):
        started.append(subprocess.Popen([sys.executable, '-c', HOLD, path / LOCK], stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b'held\n'
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('argv', [(), ('--resume', 'auto')])
def test_a_running_run_is_left_alone(argv, tmp_path, hold):
    """Until its process has ended, by whatever signal."""
    (tmp_path / 'run').mkdir()
    holder = hold(tmp_path / 'run')
    options = config(tmp_path, '--experiment', 'run', *argv)
    with FolderLock() as lock:
        with pytest.raises(ConfigError, match=f"another process trains in '{tmp_path}/run': .* --experiment"):
            lock_folder(options, lock)
        holder.kill()
        holder.wait()
        assert lock_folder(options, lock) == tmp_path / 'run'


def test_simultaneous_starts_get_different_numbers(tmp_path, monkeypatch):
    base, options = 'resnet20s-alfa-digits', config(tmp_path)
    choose, answers = lock_module.choose_folder, [tmp_path / base]
    with FolderLock() as lock, FolderLock() as other:
        assert lock_folder(options, lock).name == base
        # chosen before the first one had made its folder
        monkeypatch.setattr(lock_module, 'choose_folder', lambda config: answers.pop() if answers else choose(config))
        assert lock_folder(options, other).name == f'{base}-2' and not answers


def test_resume_auto_starts_a_run_or_resumes_the_last(tmp_path, monkeypatch):
    base, options = 'resnet20s-alfa-digits', config(tmp_path, '--resume', 'auto')
    (tmp_path / base).mkdir()  # of a start that came to nothing
    choose, looks = lock_module.choose_folder, iter(range(4))
    monkeypatch.setattr(lock_module, 'choose_folder', lambda config: (next(looks), choose(config))[1])
    with FolderLock() as lock:
        for _ in range(2):
            path = lock_folder(options, lock)
            assert path.name == f'{base}-2'
            (path / 'args.yaml').write_text('environment: {}')
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_that_began_and_ended_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    take = FolderLock.take

    def late(self, path):
        (path / 'result.json').write_text('{}')
        take(self, path)

    monkeypatch.setattr(FolderLock, 'take', late)
    with FolderLock() as lock, pytest.raises(ConfigError, match='already holds a run'):
        lock_folder(config(tmp_path, '--experiment', 'run'), lock)


def test_processes_that_read_images_do_not_hold_the_folder(tmp_path, hold):
    with FolderLock() as lock:
        lock.take(tmp_path)
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
    try:
        hold(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_file_systems_without_locks_get_a_warning(tmp_path, monkeypatch):
    def lockf(*args):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', lockf)
    with FolderLock() as lock, pytest.warns(AlfaWarning, match='cannot be locked here .No locks available'):
        lock.take(tmp_path)
