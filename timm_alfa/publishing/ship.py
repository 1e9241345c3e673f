"""Copy a run's small weights into the package, so that their name loads offline."""

import dataclasses
from pathlib import Path
from typing import Optional, Union

from timm_alfa.errors import HubError
from timm_alfa.publishing.publish import Evaluate, check_run, manifest_row
from timm_alfa.publishing.repo_files import copy_weights
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.files import atomic_file
from timm_alfa.utils.program import program
from timm_alfa.zoo.download import WEIGHTS
from timm_alfa.zoo.manifest import MANIFEST, Row, load_manifest, save_manifest

LIMIT = 8_000_000  # bytes; ResNet-56s in float32 has 3.5 million


def ship(
    run: Union[str, Path],
    name: str,
    *,
    root: Path = MANIFEST.parent,
    evaluate: Optional[Evaluate] = None,
) -> tuple[Row, Optional[int]]:
    """Copy a run's best weights into `root`/files/NAME, and write their row into `root`/manifest.json.

    The checks are those of publishing. If the name had other weights, their row is replaced.

    Args:
        run: A run folder of train.py.
        name: `architecture.tag`.
        root: The zoo's folder.
        evaluate: As in `publish.check_run`.

    Returns:
        The row, and on how many images the recorded accuracy was reproduced (None: it was not).

    Raises:
        AlfaError: In one line, which says what was changed, if anything.
    """
    found, count = check_run(run, name, evaluate)
    _check_name(found, name)
    _check_size(found, name)

    rows = load_manifest(root / 'manifest.json')
    row = manifest_row(found, name, found.weights, file=f'files/{name}')
    if name in rows and rows[name].sha256 == row.sha256:  # the same weights are on the Hub, too
        row = dataclasses.replace(row, repo_id=rows[name].repo_id, revision=rows[name].revision)
    _write(found, root / 'files' / name, list({**rows, name: row}.values()), root / 'manifest.json')
    return row, count


def _check_name(run: FinishedRun, name: str) -> None:
    model, _, tag = name.partition('.')
    if model != run.architecture or not tag or Path(name).name != name:
        raise HubError(f"'{name}' is not a name of this run: use {run.architecture}.TAG.")


def _check_size(run: FinishedRun, name: str) -> None:
    size = run.weights.stat().st_size
    if size > LIMIT:
        raise HubError(
            f"the weights of '{name}' have {size} bytes, and the limit for the package is {LIMIT}: publish them on the "
            f'Hub with {program("publish")}.'
        )


def _write(run: FinishedRun, folder: Path, rows: list[Row], manifest: Path) -> None:
    """Write both files before either is replaced, the weights first: no row is without its weights."""
    changed = 'Nothing was changed'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(manifest) as new_manifest:
            save_manifest(rows, new_manifest)
            with atomic_file(folder / WEIGHTS) as new_weights:
                copy_weights(run, new_weights)
            changed = 'Its weights are in place, but their row is missing or that of other weights: ship them again'
    except OSError as error:
        raise HubError(f"'{folder.name}' cannot be written: {error}. {changed}.") from error
