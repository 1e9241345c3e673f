"""The script that needs a GPU, rehearsed on the CPU: parts end within their time and leave the others alone."""

import json
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def gpu(load_script):
    return load_script('gpu')


@pytest.fixture(scope='module')
def gpu_parts(load_script):
    return load_script('gpu_parts')


def test_rates_and_runs_are_rehearsed(tmp_path):
    words = (
        '--rehearse',
        '--parts',
        'rates',
        'runs',
        'pack',
        '--seconds',
        '500',
        '--results',
        str(tmp_path / 'results'),
    )
    subprocess.run([sys.executable, 'benchmarks/gpu.py', *words], cwd=ROOT, check=True, timeout=550)
    rates = [json.loads(line) for line in (tmp_path / 'results' / 'rates.jsonl').read_text().splitlines()]
    assert [(row['precision'], row['task'], row['together']) for row in rates] == [
        (precision, task, together)
        for precision in ('bf16', 'no')
        for task in ('standard', 'alfa')
        for together in (1, 2)
    ]
    assert all(row['images_per_second'] > 0 and row['bytes_per_update'] > 0 and row['share'] > 0 for row in rates)
    records = [json.loads(line) for line in (tmp_path / 'results' / 'runs.jsonl').read_text().splitlines()]
    assert {record['name'] for record in records} == {'standard-s0', 'doubled-s0', 'alfa-s0'}
    assert all(record['status'] == 'finished' and record['runs_together'] == 3 for record in records)
    with tarfile.open(tmp_path / 'results' / 'tables.tar.gz') as archive:
        assert {'rates.jsonl', 'runs.jsonl', 'parts.txt', 'runs.log'} <= set(archive.getnames())
    with tarfile.open(tmp_path / 'results' / 'runs-1.tar.gz') as archive:
        assert 'alfa-s0/model_best.safetensors' in archive.getnames()


def test_a_part_that_takes_too_long_is_ended(gpu, tmp_path):
    began = time.monotonic()
    slow = gpu.Part('slow', 1, ('-c', 'import time; print("begun", flush=True); time.sleep(60)'))
    assert gpu.run(slow, 6.0, tmp_path) == 'exit -15'
    assert time.monotonic() - began < 20
    assert (tmp_path / 'slow.log').read_text() == 'begun\n'
    assert gpu.run(gpu.Part('bad', 1, ('-c', 'raise SystemExit(3)')), 30.0, tmp_path) == 'exit 3'


def test_as_many_seeds_as_fit(gpu_parts, tmp_path):
    rows = [
        {'precision': 'bf16', 'task': task, 'images_per_second': rate}
        for task, rate in (('standard', 100_000), ('standard', 200_000), ('alfa', 150_000))
    ]
    (tmp_path / 'rates.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    args = Namespace(rehearse=False, results=tmp_path)
    assert gpu_parts.seeds_that_fit(Namespace(rehearse=False, results=tmp_path / 'nothing'), 9999) == 1
    # a seed of all arms takes 9e6 * (2 / 200,000 + 1 / 150,000) = 150 s
    assert [gpu_parts.seeds_that_fit(args, seconds) for seconds in (100, 170, 340, 510, 9999)] == [1, 1, 2, 3, 4]


def test_archives_stay_small(gpu_parts, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, 'ARCHIVE_SIZE', 1000)
    monkeypatch.setattr(gpu_parts, 'ARCHIVES', 2)
    results, work = tmp_path / 'results', tmp_path / 'work'
    results.mkdir()
    for name in ('a', 'b', 'c', 'd', 'e'):
        (work / name).mkdir(parents=True)
        (work / name / 'model_best.safetensors').write_bytes(bytes(400))
        (work / name / 'result.json').write_text('{}')
    gpu_parts.pack(Namespace(archives=results, work=work))
    packed = []
    for path in sorted(results.glob('*.tar.gz')):
        with tarfile.open(path) as archive:
            packed.append(archive.getnames())
    assert packed[0][:5] == [f'{name}/result.json' for name in 'abcde']
    assert [sum('safetensors' in name for name in names) for names in packed] == [2, 2]
