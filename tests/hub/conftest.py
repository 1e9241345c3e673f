"""A Hub on loopback, and a process whose Hub it is."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load(path: Path):
    """A module of the tests by its file."""
    spec = importlib.util.spec_from_file_location(f'timm_alfa_tests_{path.parent.name}_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


loopback = load(HERE / 'loopback.py')


class Failed(Exception):
    """What the worker's code raised: its class, message and trace."""

    def __init__(self, error: str, message: str, trace: str):
        super().__init__(f'{error}: {message}')
        self.error, self.message, self.trace = error, message, trace


class Client:
    """Runs code in the worker, with the owner's token unless HF_TOKEN is passed."""

    def __init__(self, process, hub):
        self.process, self.hub = process, hub

    def __call__(self, code: str, **env):
        job = {'code': code, 'env': {'HF_TOKEN': loopback.OWNER, **env}}
        self.process.stdin.write(json.dumps(job) + '\n')
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if 'error' in answer:
            raise Failed(**answer)
        return answer['result']


@pytest.fixture(scope='session')
def _worker(tmp_path_factory):
    hub = loopback.Hub()
    home = tmp_path_factory.mktemp('hf')
    env = {key: value for key, value in os.environ.items() if not key.startswith(('HF_', 'HUGGING', 'TIMM_ALFA'))}
    env |= {
        'HF_ENDPOINT': hub.url,
        'HF_HOME': str(home),
        'HF_HUB_DISABLE_XET': '1',
        'HF_HUB_DISABLE_TELEMETRY': '1',
        'HF_HUB_DISABLE_PROGRESS_BARS': '1',
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': str(HERE.parents[1]),
        'NO_PROXY': '127.0.0.1,localhost',
        'no_proxy': '127.0.0.1,localhost',
    }
    with subprocess.Popen(
        [sys.executable, str(HERE / 'worker.py')], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == 'ready\n'
        yield Client(process, hub)
        process.stdin.close()
    hub.shutdown()


@pytest.fixture
def client(_worker):
    """The worker, and an empty Hub."""
    hub = _worker.hub
    hub.repos.clear()
    hub.blobs.clear()
    hub.faults.clear()
    hub.log.clear()
    hub.cdn_headers.clear()
    return _worker


@pytest.fixture
def hub(client):
    """The server that the worker talks to."""
    return client.hub
