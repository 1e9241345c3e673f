"""A tiny table end to end with the real train.py, whose runner is killed once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from studies import compare, records, report

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path) -> list[str]:
    return [
        sys.executable,
        str(ROOT / 'studies' / 'run.py'),
        'smoke',
        '--seeds',
        '3,',
        '--jobs',
        '2',
        '--output',
        str(folder / 'out'),
        '--records',
        str(folder / 'runs'),
    ]


def test_smoke_table_end_to_end(tmp_path):
    first = subprocess.Popen(command(tmp_path), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / 'out').glob('*/args.yaml'))) < 1:
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=240)
    assert second.returncode == 0, second.stderr
    names = sorted(path.stem for path in (tmp_path / 'runs').glob('*.json'))
    assert names == ['smoke-s3', 'smoke_alfa-s3']
    for name in names:
        record = json.loads((tmp_path / 'runs' / f'{name}.json').read_text())
        assert str(tmp_path) not in json.dumps(record)
        assert str(ROOT) not in json.dumps(record)
        assert record['epochs_done'] == record['epochs'] == 1
        log = next((tmp_path / 'out').glob(f'{name}-*.log')).read_text()
        assert log.count('done in') == 1  # one process trained to the end
    again = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=30)
    assert '2 runs, 2 of them recorded' in again.stderr
    list(report.write(tmp_path / 'runs', tmp_path, tmp_path / 'recipes'))
    page = (tmp_path / 'report.md').read_text()
    assert '## smoke' in page
    assert 'seed 3' in (tmp_path / 'recipes' / 'smoke' / 'alfa.yaml').read_text()
    ((where, runs),) = compare.by_condition(records.load_all(tmp_path / 'runs')).items()
    assert (where.scale, where.precision, set(runs), set(runs['smoke'])) == (1.0, 'no', {'smoke', 'smoke_alfa'}, {3})


def test_list_may_be_piped_into_head():
    listing = subprocess.Popen(
        [sys.executable, str(ROOT / 'studies' / 'run.py'), '--list'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert listing.stdout.readline().startswith('table1')
    listing.stdout.close()
    assert listing.stderr.read() == ''
    assert listing.wait() in (0, -signal.SIGPIPE)
