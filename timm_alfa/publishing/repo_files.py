"""The files of a published repo, written from a run: regular files only, of the kinds that train.py writes."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from timm_alfa.errors import CheckpointError
from timm_alfa.publishing.record_checks import without_paths
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.training.run_dir.folder import without_num_classes
from timm_alfa.utils.files import open_regular, sha256_of
from timm_alfa.utils.plain_data import dump_yaml
from timm_alfa.utils.redact import redact
from timm_alfa.zoo.download import WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

PLOTS = ('curves.png', 'eta.png')
_PNG = b'\x89PNG\r\n\x1a\n'

# What is published of config.json: how the model is built, what its classes are called, and how images are prepared.
# Nothing that says where weights or code come from (url, hf_hub_id, custom_load, auto_map) or that describes others'.
_CONFIG_KEYS = (
    'architecture',
    'num_classes',
    'num_features',
    'global_pool',
    'label_names',
    'label_descriptions',
    'model_args',
)
_PRETRAINED_CFG_KEYS = (
    'input_size',
    'test_input_size',
    'min_input_size',
    'fixed_input_size',
    'interpolation',
    'crop_pct',
    'test_crop_pct',
    'crop_mode',
    'mean',
    'std',
    'num_classes',
    'pool_size',
    'test_pool_size',
    'first_conv',
    'classifier',
)


def write_repo(
    run: FinishedRun, name: str, card: 'ModelCard', folder: Path, others: Optional[Mapping[str, str]] = None
) -> list[str]:
    """Write the files of a repo into an empty folder.

    Args:
        run: What is published, redacted.
        name: The repo's name, without its organization.
        card: Its model card.
        folder: Created if it does not exist.
        others: More text files by their path in the repo.

    Returns:
        The paths of the files in the repo.

    Raises:
        CheckpointError: A file of the run is not what train.py wrote there.
    """
    # everything that may be refused comes before anything is written
    texts = {
        'config.json': _json(published_config(run, name, card.data.get('license'))),
        'result.json': _json(published_record(run)),
        'args.yaml': _args(run),
        'summary.csv': _summary(run.folder / 'summary.csv'),
        **(others or {}),
    }
    plots = {name: _plot(run.folder / name) for name in PLOTS}

    folder.mkdir(parents=True, exist_ok=True)
    copy_weights(run, folder / WEIGHTS)
    for file, text in texts.items():
        if text is not None:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text, encoding='utf-8')
    for file, content in plots.items():
        if content is not None:
            (folder / file).write_bytes(content)
    card.save(folder / 'README.md')
    return list(files_of(folder))


def files_of(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their path in the repo."""
    files = [path for path in folder.rglob('*') if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in sorted(files)}


def copy_weights(run: FinishedRun, target: Path) -> None:
    """Copy a run's weights.

    Raises:
        CheckpointError: They are not a regular file, or not those that the record scored.
        OSError: They cannot be written.
    """
    with _open(run.weights) as source, open(target, 'wb') as file:
        shutil.copyfileobj(source, file)
    if run.record.get('checkpoint_sha256') not in (None, sha256_of(target)):
        raise CheckpointError(f"'{run.weights}' was changed while it was published: publish the run again.")


def published_config(run: FinishedRun, name: str, license: Optional[str]) -> dict[str, Any]:
    """What is published of a run's config.json, with the tag and the license of the repo."""
    config = {key: run.config[key] for key in _CONFIG_KEYS if key in run.config}
    config['model_args'] = without_num_classes(config.get('model_args') or {})
    own = run.config['pretrained_cfg']
    cfg = {key: own[key] for key in _PRETRAINED_CFG_KEYS if key in own}
    tag = name.partition('.')[2] or run.record['task']
    return {**config, 'pretrained_cfg': {**cfg, 'tag': tag, 'license': license}}


def published_record(run: FinishedRun) -> dict[str, Any]:
    """A run's record, without paths of the machine it ran on."""
    return {**without_paths(run).record, 'checkpoint': WEIGHTS}


def has_plot(run: FinishedRun, name: str) -> bool:
    """Whether a run has a plot."""
    return os.path.lexists(run.folder / name)


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2) + '\n'


def _args(run: FinishedRun) -> Optional[str]:
    if not os.path.lexists(run.folder / 'args.yaml'):
        return None
    return dump_yaml(without_paths(run).args)


def _summary(path: Path) -> Optional[str]:
    """The table of epochs: names and numbers."""
    content = _content(path)
    if content is None:
        return None
    try:
        text = content.decode('utf-8')
        header, *rows = csv.reader(io.StringIO(text), strict=True)
        for cell in (cell for row in rows for cell in row):
            if cell not in ('', 'True', 'False'):
                float(cell)
    except (ValueError, csv.Error):
        header = ['']
    if not all(name.isidentifier() for name in header):
        raise _refused(path, 'it is not a table of numbers')
    return redact(text)


def _plot(path: Path) -> Optional[bytes]:
    content = _content(path)
    if content is not None and not content.startswith(_PNG):
        raise _refused(path, 'it is not a PNG image')
    return content


def _content(path: Path) -> Optional[bytes]:
    """A file's content, or None if there is no such file."""
    if not os.path.lexists(path):
        return None
    with _open(path) as file:
        return file.read()


def _open(path: Path):
    try:
        return open_regular(path)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"'{path}' cannot be published: {reason}. Put the file that training wrote in its place, or remove it."
    )
