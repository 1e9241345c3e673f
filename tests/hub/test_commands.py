"""hub/publish.py and hub/ship.py from the command line."""

import json
from pathlib import Path

import pytest

from .conftest import load

HUB = Path(__file__).parents[2] / 'hub'
publish = load(HUB / 'publish.py')
ship = load(HUB / 'ship.py')


def test_a_dry_run_ends_with_its_record(make_run, tmp_path, capsys):
    out = tmp_path / 'out'
    assert publish.main([str(make_run()), '--repo-id', 'me/resnet20s.alfa_c10', '--dry-run', '--output', str(out)]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record['status'], record['reproduced_on']) == ('dry-run', None)
    assert record['files'] == sorted(path.name for path in out.iterdir())
    assert record['manifest_row']['name'] == 'resnet20s.alfa_c10'


@pytest.mark.parametrize('flags', [['--dry-run'], ['--output', 'x']])
def test_flags_that_belong_together(make_run, flags, capsys):
    with pytest.raises(SystemExit) as end:
        publish.main([str(make_run()), '--repo-id', 'me/x', *flags])
    assert end.value.code == 2
    assert 'belong together' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'argv'), [('publish', ['--repo-id', 'me/x']), ('ship', ['--name', 'resnet20s.x'])])
def test_an_error_is_one_line_and_exit_status_1(make_run, capsys, name, argv):
    assert {'publish': publish, 'ship': ship}[name].main([str(make_run(status='running')), *argv]) == 1
    shown = capsys.readouterr()
    assert shown.out == ''
    assert shown.err.startswith(f'{name}.py: the run in ')
    assert shown.err.count('\n') == 1


def test_no_token_is_one_line(make_run, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv('HF_TOKEN', raising=False)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: None)  # this machine may be logged in
    assert publish.main([str(make_run()), '--repo-id', 'me/x', '--samples', '0']) == 1
    assert 'hf auth login' in capsys.readouterr().err
