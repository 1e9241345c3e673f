"""hub/publish.py and hub/ship.py from the command line."""

import json
from pathlib import Path

import pytest

from .conftest import load

HUB = Path(__file__).parents[2] / 'hub'
publish = load(HUB / 'publish.py')
ship = load(HUB / 'ship.py')
PROGRAMS = {'publish': 'hub/publish.py', 'ship': 'ship.py'}


def test_a_dry_run_ends_with_its_record(make_run, tmp_path, capsys):
    out = tmp_path / 'out'
    assert publish.main([str(make_run()), '--repo-id', 'me/resnet20s.alfa_c10', '--dry-run', '--output', str(out)]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record['status'], record['reproduced_on']) == ('dry-run', None)
    assert record['files'] == sorted(str(path.relative_to(out)) for path in out.rglob('*') if path.is_file())
    assert record['manifest_row']['name'] == 'resnet20s.alfa_c10'


def test_a_dry_run_needs_no_folder(make_run, tmp_path, capsys, monkeypatch):
    run = make_run()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    assert publish.main([str(run), '--repo-id', 'me/resnet20s.alfa_c10', '--dry-run']) == 0
    *_, hint, last = capsys.readouterr().out.splitlines()
    assert hint == 'nothing was sent or written: add --output DIR to look at the files'
    assert json.loads(last)['status'] == 'dry-run'
    assert sorted(tmp_path.rglob('*')) == before


def test_only_a_dry_run_writes_to_a_folder(make_run, capsys):
    with pytest.raises(SystemExit) as end:
        publish.main([str(make_run()), '--repo-id', 'me/x', '--output', 'x'])
    assert end.value.code == 2
    assert 'add --dry-run' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'argv'), [('publish', ['--repo-id', 'me/x']), ('ship', ['--name', 'resnet20s.x'])])
def test_an_error_is_one_line_and_exit_status_1(make_run, capsys, name, argv):
    assert {'publish': publish, 'ship': ship}[name].main([str(make_run(status='running')), *argv]) == 1
    shown = capsys.readouterr()
    assert shown.out == ''
    assert shown.err.startswith(f'{PROGRAMS[name]}: the run in ')
    assert shown.err.count('\n') == 1


def test_no_token_is_one_line(make_run, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv('HF_TOKEN', raising=False)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: None)  # this machine may be logged in
    assert publish.main([str(make_run()), '--repo-id', 'me/x', '--samples', '0']) == 1
    assert 'hf auth login' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'argv'), [('publish', ['--repo-id', 'me/x']), ('ship', ['--name', 'resnet20s.x'])])
def test_a_path_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, capsys, name, argv):
    monkeypatch.setenv('HOME', str(tmp_path))
    main = {'publish': publish, 'ship': ship}[name].main
    for run, shown in (('x' * 300, f"'{'x' * 300}"), ('~/run', f"'{tmp_path}/run'")):
        assert main([run, *argv]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f'{PROGRAMS[name]}: {shown}') and error.count('\n') == 1
