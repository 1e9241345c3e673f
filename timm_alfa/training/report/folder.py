"""The folder that --per-class writes."""

from pathlib import Path
from typing import Any, Sequence, Union

from timm_alfa.data.datasets.base import Source
from timm_alfa.errors import ConfigError
from timm_alfa.training.report.mistakes import draw_mistakes
from timm_alfa.training.report.per_class import (
    confusion_csv,
    confusion_matrix,
    draw_confusion,
    per_class,
    per_class_csv,
)
from timm_alfa.training.report.predictions import Predictions
from timm_alfa.utils.files import atomic_file, check_writable, remove_quietly, write_text
from timm_alfa.utils.plotting import png

FILES = ('per_class.csv', 'confusion.csv', 'confusion.png', 'mistakes.png')


def check_report_folder(path: Union[str, Path]) -> None:
    """Creates the folder, or checks that it holds nothing but an earlier report.

    Raises:
        ConfigError: It holds other files, or cannot be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        foreign = sorted(each.name for each in path.iterdir() if each.name not in FILES)
        if foreign:
            raise ConfigError(
                f"--per-class is '{path}', which holds other files, such as '{foreign[0]}': use a new folder."
            )
        check_writable(path)
    except OSError as error:
        raise ConfigError(f"--per-class: cannot write in '{path}': {error.strerror}. Use another folder.") from error


def write_report(
    path: Union[str, Path], found: Predictions, source: Source, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Writes the tables and pictures, in place of those of an earlier report, and returns the rows of `per_class`.

    Raises:
        ConfigError: The folder cannot be written any more.
    """
    path = Path(path)
    confusion = confusion_matrix(found, len(names))
    rows = per_class(confusion, names)
    try:
        write_text(path / 'per_class.csv', per_class_csv(rows))
        write_text(path / 'confusion.csv', confusion_csv(confusion, names))
        _save(path / 'confusion.png', draw_confusion(confusion, names))
        _save(path / 'mistakes.png', draw_mistakes(found, source, names))
    except OSError as error:
        raise ConfigError(f"--per-class: cannot write in '{path}': {error.strerror}. Use another folder.") from error
    return rows


def _save(path: Path, figure) -> None:
    """Writes a figure; without one, removes that of an earlier report."""
    if figure is None:
        remove_quietly(path)
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(png(figure))
