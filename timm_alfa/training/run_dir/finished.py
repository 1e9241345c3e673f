"""What train.py leaves behind, read and checked before it is published."""

import dataclasses
import math
import os
import re
from pathlib import Path
from typing import Any, Callable, Optional, Union

from timm_alfa.errors import CheckpointError, first_line
from timm_alfa.utils.files import open_regular, sha256_of
from timm_alfa.utils.plain_data import PlainDataError, read_json, read_yaml
from timm_alfa.utils.program import launch_command, program, spelling
from timm_alfa.zoo.tags import DataSet, dataset_by_id, find_dataset

_NEEDED = ('experiment', 'model', 'task', 'dataset', 'num_classes')


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The accuracy of the checkpoint in percent.

    Attributes:
        split: The split it was measured on.
        images: The size of that split, if it is known.
        chosen_on: The split that the best checkpoint was chosen on, which may be the same.
        attack: The options of the PGD attack of `robust_top1`, if they are known.
    """

    split: str
    top1: float
    top5: Optional[float]
    robust_top1: Optional[float]
    images: Optional[int]
    chosen_on: str
    attack: Optional[dict[str, Any]] = None


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        record: Its result.json.
        args: Its args.yaml; empty if it has none.
        config: Its config.json.
    """

    folder: Path
    record: dict[str, Any]
    args: dict[str, Any]
    config: dict[str, Any]
    evaluation: Evaluation

    @property
    def weights(self) -> Path:
        return self.folder / (self.record.get('checkpoint') or 'model_best.safetensors')

    @property
    def architecture(self) -> str:
        return self.config['architecture']

    @property
    def dataset(self) -> Optional[DataSet]:
        """The row of the run's dataset, if it is a known one."""
        return find_dataset(self.record['dataset'], self.record['num_classes'])

    def dataset_as(self, hub_id: Optional[str]) -> Optional[DataSet]:
        """The row of its dataset or, if that is not a known one, of the dataset with this id on the Hub."""
        return self.dataset or dataset_by_id(hub_id, self.record['num_classes'])


def read_run(folder: Union[str, Path]) -> FinishedRun:
    """Reads and checks a run folder.

    Raises:
        CheckpointError: It is not a run's; the run is not finished or was not evaluated; files are missing or cannot be
            read; or its weights are not those that were evaluated.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"'{folder}' is not a folder: use the folder of a run, OUTPUT/EXPERIMENT.")
    resume = launch_command(*spelling('train').launch, '--resume', folder)

    record = _read_record(folder, resume)
    evaluation = _evaluation(record, folder)
    config = _read_json(folder / 'config.json')
    if missing := [key for key in ('architecture', 'num_classes', 'pretrained_cfg') if key not in config]:
        raise CheckpointError(f"{folder / 'config.json'} lacks {', '.join(missing)}: it is not in timm's form.")

    run = FinishedRun(folder, record, _read_args(folder / 'args.yaml'), config, evaluation)
    _check_weights(run)
    if record.get('checkpoint_sha256') not in (None, sha256_of(run.weights)):
        raise CheckpointError(
            f"'{run.weights}' is not the file that result.json evaluated (its checkpoint_sha256 differs): the run was "
            f'resumed. Finish it with: {resume}'
        )
    return run


def _read_record(folder: Path, resume: str) -> dict[str, Any]:
    """The record of a finished run."""
    path = folder / 'result.json'
    if not path.is_file():
        raise CheckpointError(f"the run in '{folder}' is not finished: it has no result.json. Resume it with: {resume}")
    record = _read_json(path)
    if record.get('status') != 'finished':
        raise CheckpointError(
            f"the run in '{folder}' is not finished: its result.json says '{record.get('status')}'. "
            f'Resume it with: {resume}'
        )
    if missing := [key for key in _NEEDED if record.get(key) is None]:
        raise CheckpointError(f'{path} lacks {", ".join(missing)}: it is not that of a run of {program("train")}.')
    return record


def _check_weights(run: FinishedRun) -> None:
    """Checks that the weights are a file of the run folder, not one elsewhere that a path or a link leads to."""
    name = run.record.get('checkpoint') or 'model_best.safetensors'
    if not isinstance(name, str) or not re.fullmatch(r'[A-Za-z0-9_][\w.-]*\.safetensors', name):
        raise CheckpointError(
            f'{run.folder / "result.json"} has checkpoint {name!r}: expected the name of a safetensors file in the run '
            'folder, such as model_best.safetensors.'
        )
    if not os.path.lexists(run.weights):
        raise CheckpointError(f"'{run.weights}' is missing: a finished run has its best weights there.")
    try:
        open_regular(run.weights).close()
    except OSError as error:
        raise CheckpointError(f"'{run.weights}' cannot be read: {_reason(error)}.") from error


def _read_json(path: Path) -> dict[str, Any]:
    return _mapping(path, read_json)


def _read_args(path: Path) -> dict[str, Any]:
    return _mapping(path, read_yaml) if os.path.lexists(path) else {}


def _mapping(path: Path, read: Callable[..., Any]) -> dict[str, Any]:
    """The mapping in a regular file; no symbolic link is followed."""
    try:
        values = read(path, follow_links=False)
    except (OSError, PlainDataError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {_reason(error)}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"'{path}' cannot be read: it does not hold a mapping.")
    return values


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or first_line(error)


def _evaluation(record: dict[str, Any], folder: Path) -> Evaluation:
    """The accuracy on the test split if there is one, or else on the split that the checkpoint was chosen on."""
    chosen_on = record.get('val_split') or 'validation'
    if record.get('test_top1') is not None:
        prefix, split = 'test', record.get('test_split') or 'test'
    elif record.get('val_top1') is not None:
        prefix, split = 'val', chosen_on
    else:
        raise CheckpointError(
            f"the run in '{folder}' was not evaluated: result.json has neither test_top1 nor val_top1. "
            'What is published states its accuracy: train with a validation or a test split.'
        )

    top1, top5 = record[f'{prefix}_top1'], record.get(f'{prefix}_top5')
    if not _is_percentage(top1) or not _is_percentage(top5 or 0):
        raise CheckpointError(
            f"'{folder}' records {prefix}_top1 {top1} and {prefix}_top5 {top5}: an accuracy is a "
            f'percentage from 0 to 100. Evaluate again with {program("validate")}.'
        )
    if record['num_classes'] in range(1, 6):
        top5 = None  # it is 100% whatever the model says
    images = record.get(f'{prefix}_images')
    return Evaluation(split, top1, top5, record.get('robust_top1'), images, chosen_on)


def _is_percentage(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 100
