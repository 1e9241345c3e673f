"""How commands exit: whatever the environment, in one line and with the code that is documented."""

import errno

import pytest

from timm_alfa.errors import ConfigError
from timm_alfa.training.exit import before_work, check_asserts, path_errors, run_main
from timm_alfa.utils.distributed import is_main_process


def test_empty_variables_of_a_launcher_mean_that_there_is_none(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '')
    seen = []
    run_main(lambda: seen.append(is_main_process()))
    assert seen == [True]


@pytest.mark.parametrize('name', ['RANK', 'WORLD_SIZE'])
def test_a_variable_that_is_not_a_count_is_one_line(name, monkeypatch, capsys):
    monkeypatch.setenv(name, 'many')
    with pytest.raises(SystemExit) as end:
        run_main(lambda: pytest.fail('it ran'))
    error = capsys.readouterr().err
    assert end.value.code == 2 and f"the environment has {name}='many'" in error and error.count('\n') == 1


def test_a_path_without_permission_is_one_line():
    def refuse():
        raise PermissionError(errno.EACCES, 'Permission denied', '/locked/x')

    with pytest.raises(ConfigError, match="'/locked/x' cannot be used: Permission denied") as caught, before_work():
        refuse()
    assert caught.value.exit_code == 2
    with pytest.raises(OSError, match='no path'), path_errors():
        raise OSError('no path')


def test_python_without_asserts_is_refused():
    check_asserts(0)
    with pytest.raises(ConfigError, match='python -O removes checks that timm relies on'):
        check_asserts(1)
