"""A file that a user names: checked before work starts, written completely or not at all."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from timm_alfa.errors import ConfigError
from timm_alfa.utils.files import atomic_file

TABLES = ('.csv', '.parquet')


def check_output_file(flag: str, path: str, endings: Sequence[str]) -> None:
    """Checks that a file can be written.

    Args:
        flag: The flag that names it.
        path: Of the file.
        endings: Those that its name may have.

    Raises:
        ConfigError: Its name has another ending, or its folder does not exist.
    """
    if Path(path).suffix not in endings:
        raise ConfigError(f"{flag} is '{path}': its name must end in {' or '.join(endings)}.")
    folder = Path(path).parent
    if not folder.is_dir():
        raise ConfigError(f"{flag} is '{path}', but the folder '{folder}' does not exist: create it first.")


@contextmanager
def output_file(flag: str, path: str) -> Iterator[Path]:
    """Gives a temporary file to fill; on success it becomes `path`.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        with atomic_file(path) as temporary:
            yield temporary
    except OSError as error:
        raise ConfigError(f"{flag} '{path}' cannot be written: {error.strerror or error}.") from error


def write_table(flag: str, path: str, columns: Mapping[str, Any]) -> None:
    """Writes columns as .csv or .parquet.

    Raises:
        ConfigError: The file cannot be written.
    """
    import pyarrow

    table = pyarrow.table(dict(columns))
    with output_file(flag, path) as temporary:
        if Path(path).suffix == '.csv':
            from pyarrow.csv import write_csv

            write_csv(table, temporary)
        else:
            from pyarrow.parquet import write_table as write_parquet

            write_parquet(table, temporary)
