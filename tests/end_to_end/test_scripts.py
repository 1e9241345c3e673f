"""The scripts as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.training_processes import Processes
from helpers.training_runs import TINY

ROOT = Path(__file__).resolve().parents[2]


def call(*command, **environment):
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'HF_HUB_OFFLINE': '1',
            'OMP_NUM_THREADS': '1',
            'ACCELERATE_USE_CPU': 'true',
            **environment,
        },
    )


def test_train_then_validate(tmp_path):
    trained = call(
        sys.executable,
        '-m',
        'accelerate.commands.launch',
        '--num_processes',
        '1',
        '--num_machines',
        '1',
        '--mixed_precision',
        'bf16',
        '--dynamo_backend',
        'no',
        'train.py',
        *TINY,
        '--output',
        str(tmp_path),
        '--epochs',
        '1',
    )
    assert trained.returncode == 0, trained.stderr
    record = json.loads(trained.stdout.strip().splitlines()[-1])
    assert record['mixed_precision'] == 'bf16' and record['experiment'] == 'test_resnet-alfa-digits'
    assert 'no --dataset or --data-dir given, so the embedded digits' in trained.stderr
    scored = call(sys.executable, 'validate.py', '--checkpoint', record['run'])
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout.strip().splitlines()[-1])['count'] == 360


@pytest.mark.parametrize(
    'argv',
    [
        ('train.py', '--modle', 'x', '--lr', 'high'),
        ('train.py', '--dataset', 'digitz'),
        ('validate.py',),
        ('train.py', '--task', 'standard', '--model', 'test_resnet', '--initial-checkpoint', '/no/such.pth'),
    ],
)
def test_misuse_is_a_line_per_error_and_exit_code_2(argv, tmp_path):
    words = (*argv[1:], *(('--output', str(tmp_path / 'out')) if argv[0] == 'train.py' else ()))
    run = Processes(tmp_path, words, script=argv[0].removesuffix('.py'))
    assert run.wait() == [2] and run.out.empty()
    lines = run.stderr.strip().splitlines()
    assert sum(line.startswith('error: ') for line in lines) == (2 if '--lr' in argv else 1)
    assert 'Traceback' not in run.stderr and not (tmp_path / 'out').exists()


def test_dry_run_writes_nothing(tmp_path):
    done = call(
        sys.executable,
        'train.py',
        *TINY,
        '--task',
        'l_alfa',
        '--alfa-blocks',
        '2,4',
        '--dry-run',
        '--output',
        str(tmp_path / 'out'),
    )
    assert done.returncode == 0, done.stderr
    assert 'layer4  96x1x1' in done.stdout and not (tmp_path / 'out').exists()
    assert json.loads(done.stdout.strip().splitlines()[-1])['params'] > 0


def test_dry_run_refuses_what_the_run_would_be_refused_for(tmp_path):
    run = Processes(tmp_path, [*TINY, '--dry-run', '--resume', str(tmp_path / 'none')])
    assert run.wait() == [2] and "which is not a run's folder" in run.stderr and run.out.empty()


def test_misuse_of_a_script_by_its_name_is_exit_code_2():
    done = call(sys.executable, 'train.py', '--modle', 'x')
    assert done.returncode == 2 and done.stdout == '' and done.stderr.startswith('error: ')
