"""A stranger's server, a folder that stands for site-packages, and the scripts as users run them."""

import importlib.util
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, PartialState
from helpers.training_runs import Runs

ROOT = Path(__file__).parents[2]


def load(path: Path):
    """A module by its file."""
    spec = importlib.util.spec_from_file_location(f'security_{path.parent.name}_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_hub = load(ROOT / 'tests' / 'hub' / 'conftest.py')
loopback, _worker, client, hub = _hub.loopback, _hub._worker, _hub.client, _hub.hub


@pytest.fixture(autouse=True)
def _hangs_are_failures():
    """A test that waits for what never comes, such as a writer of a pipe, fails."""

    def fail(*args):
        pytest.fail('the test hangs')

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Stranger(BaseHTTPRequestHandler):
    """Serves the same file under every path."""

    def do_GET(self):
        body = b'print("run by the next import")\n'
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Exploit:
    """Model arguments that make timm write a stranger's file into `target`.

    Attributes:
        target: The folder that stands for site-packages.
        arguments: The arguments, for a recipe, an args.yaml or a config.json.
    """

    def __init__(self, url: str, target: Path):
        overlay = dict(url=f'{url}/sitecustomize.py', source='', hf_hub_id='', file='', custom_load=True)
        self.target = target
        self.arguments = dict(pretrained_cfg_overlay=overlay, cache_dir=str(target))

    @property
    def planted(self) -> list[str]:
        """Names of what lies in `target`."""
        return sorted(path.name for path in self.target.rglob('*'))

    def config(self, architecture: str = 'resnet20s', **pretrained_cfg) -> str:
        """A config.json with these arguments."""
        cfg = dict(input_size=[3, 32, 32], first_conv='conv1', classifier='fc', **pretrained_cfg)
        return json.dumps(
            dict(architecture=architecture, num_classes=10, model_args=self.arguments, pretrained_cfg=cfg)
        )


@pytest.fixture
def exploit(tmp_path, monkeypatch):
    """The exploit, with its server running."""
    monkeypatch.setenv('no_proxy', '127.0.0.1,localhost')
    server = ThreadingHTTPServer(('127.0.0.1', 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = tmp_path / 'site-packages'
    target.mkdir()
    yield Exploit(f'http://127.0.0.1:{server.server_port}', target)
    server.shutdown()
    server.server_close()


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Runs train.py or validate.py as from a command line; gives the message it is refused with."""
    from timm_alfa.errors import AlfaError

    monkeypatch.chdir(tmp_path)

    def call(script: str, *argv) -> str:
        monkeypatch.setattr('sys.argv', [script, *map(str, argv)])
        with pytest.raises(AlfaError) as caught:
            load(ROOT / script).main()
        return str(caught.value)

    return call


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs of train.py inside of the test's process."""
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'true')
    yield Runs(tmp_path)
    AcceleratorState._reset_state()
    PartialState._reset_state()
