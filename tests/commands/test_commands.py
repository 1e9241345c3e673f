"""The table of commands, and what is printed without running one."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import timm_alfa
from timm_alfa.commands import COMMANDS, listing, main
from timm_alfa.utils.program import SCRIPTS

PACKAGE = Path(timm_alfa.__file__).parent


def called(capsys, *words):
    """Exit code, stdout and stderr of `timm-alfa WORDS`."""
    try:
        main(words)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_help_and_a_version(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['timm-alfa', name, '--help'])
    assert callable(import_module(COMMANDS[name].module).main)
    code, out, _ = called(capsys, name, '--help')
    called_as = 'train' if name == 'probe' else name
    assert code == 0 and out.startswith(f'usage: timm-alfa {called_as} ')
    assert called(capsys, name, '--version') == (0, f'timm_alfa {timm_alfa.__version__}\n', '')


def test_help_lists_the_commands(capsys):
    code, out, _ = called(capsys, '--help')
    assert code == 0 and all(f'  {row.name} ' in out and row.summary in out for row in COMMANDS.values())
    assert called(capsys) == (0, out, '')
    assert called(capsys, '--version')[1] == f'timm_alfa {timm_alfa.__version__}\n'


def test_an_unknown_command_is_one_line(capsys):
    code, out, err = called(capsys, 'vaildate', '--robust')
    assert (code, out) == (2, '') and err.count('\n') == 1
    assert "unknown command 'vaildate'. Did you mean 'validate'?" in err


def test_words_after_the_command_are_its_options(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['timm-alfa', 'train', '--lr', 'high'])
    code, out, err = called(capsys, 'train', '--lr', 'high')
    assert (code, out) == (2, '') and err.startswith("error: --lr is 'high'")


def test_probe_passes_its_flag_to_train(capsys):
    code, _, err = called(capsys, 'probe', '--dry-run')
    assert code == 2 and '--probe and --dry-run cannot be combined' in err


def test_an_exit_code_of_a_command_is_that_of_the_program(capsys, tmp_path):
    code, _, err = called(capsys, 'publish', str(tmp_path / 'none'), '--repo-id', 'me/x')
    assert code == 1 and 'is not a folder' in err


def test_modules_for_launchers_and_scripts_are_the_commands():
    for name, script in SCRIPTS.items():
        assert f'timm_alfa.commands.{name} import main' in (PACKAGE.parent / script).read_text()
    for name in ('train', 'validate', 'predict'):
        assert import_module(f'timm_alfa.{name}').main is import_module(COMMANDS[name].module).main


@pytest.mark.parametrize(
    'words',
    [
        ('--help',),
        ('train', '--help'),
        ('train', '--version'),
        ('train', '--wrong', '3'),
        ('train', '--config', 'small/alfa', '--model', 'resnet50', '--lr', 'high'),
        ('validate', '--checkpoint', 'run', '--wrong'),
        ('publish', '--help'),
        ('predict', '--help'),
        ('list', '--help'),
    ],
)
def test_answers_do_not_wait_for_torch(words):
    code = (
        'import sys\nfrom timm_alfa.commands import main\n'
        'try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n'
        'print([name for name in ("torch", "timm", "accelerate", "numpy") if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == '[]', done.stderr


def test_list_shows_what_has_weights(capsys):
    listing.main([])
    lines = capsys.readouterr().out.splitlines()
    shipped = next(line for line in lines if line.startswith('resnet20s.alfa_c10 '))
    assert shipped.split() == ['resnet20s.alfa_c10', 'CIFAR-10', '89.81', '(test)', '1.09MB', 'in', 'the', 'package']
    assert next(line for line in lines if line.startswith('resnet50.alfa_in1k')).endswith('none yet')

    listing.main(['resnet20s', '--pretrained', '--json'])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row['architecture'] for row in rows} == {'resnet20s'} and all(row['weights'] for row in rows)

    listing.main(['no_such_*'])
    assert capsys.readouterr().out == "no name matches 'no_such_*'.\n"
