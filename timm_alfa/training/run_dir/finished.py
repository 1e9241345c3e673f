"""What train.py leaves behind, read and checked before it is published."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Optional, Union

import timm
import torch
import yaml
from torch import nn

from timm_alfa.errors import AlfaError, CheckpointError, HubError
from timm_alfa.models.factory import create_model
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.launcher import launch_command
from timm_alfa.zoo.tags import TAGS, DataSet, dataset_by_id, find_dataset

_NEEDED = ('experiment', 'model', 'task', 'dataset', 'num_classes')


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Accuracy of the checkpoint, percent, on `split`; `images` is the split's size where it is known.

    `chosen_on` is the split that the best checkpoint was chosen on, which may be the same; `attack` has the options of
    the PGD that `robust_top1` is under, where they are known.
    """

    split: str
    top1: float
    top5: Optional[float]
    robust_top1: Optional[float]
    images: Optional[int]
    chosen_on: str
    attack: Optional[dict[str, Any]] = None


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, result.json, args.yaml ({} without one), config.json and what it measured."""

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
        """The row of the run's data set, where it is a known one."""
        return find_dataset(self.record['dataset'], self.record['num_classes'])

    def dataset_as(self, hub_id: Optional[str]) -> Optional[DataSet]:
        """The row of its data set, or of the one that somebody names by its id on the Hub where it is not known."""
        return self.dataset or dataset_by_id(hub_id, self.record['num_classes'])


def read_run(folder: Union[str, Path]) -> Run:
    """Read a run folder.

    Raises:
        CheckpointError: It is none; it is not finished; it was not evaluated; files are missing or unreadable; or its
            weights are others than those that were scored.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"'{folder}' is no folder: give a run folder of train.py, OUTPUT/EXPERIMENT.")
    again = launch_command('train.py', '--resume', folder)
    if not (folder / 'result.json').is_file():
        raise CheckpointError(
            f"the run in '{folder}' is not finished: it has no result.json. "
            f'Go on with: {again}'
        )
    record = _read_json(folder / 'result.json')
    if record.get('status') != 'finished':
        raise CheckpointError(
            f"the run in '{folder}' is not finished: its result.json says '{record.get('status')}'. "
            f'Go on with: {again}'
        )
    if missing := [key for key in _NEEDED if record.get(key) is None]:
        raise CheckpointError(f"{folder / 'result.json'} lacks {', '.join(missing)}: it is not train.py's.")
    evaluation = _evaluation(record, folder)
    config = _read_json(folder / 'config.json')
    if missing := [key for key in ('architecture', 'num_classes', 'pretrained_cfg') if key not in config]:
        raise CheckpointError(f"{folder / 'config.json'} lacks {', '.join(missing)}: it is not in timm's form.")
    run = Run(folder, record, _read_args(folder / 'args.yaml'), config, evaluation)
    if not run.weights.is_file():
        raise CheckpointError(f"'{run.weights}' is missing: a finished run has its best weights there.")
    if record.get('checkpoint_sha256') not in (None, sha256_of(run.weights)):
        raise CheckpointError(
            f"'{run.weights}' is not the file that result.json scored (its checkpoint_sha256 is "
            f'another): the run went on. End it with: {again}'
        )
    return run


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
        if isinstance(values, dict):
            return values
        fault = 'it holds no mapping'
    except (OSError, ValueError) as error:
        fault = str(error)
    raise CheckpointError(f"'{path}' cannot be read: {fault}.")


def _read_args(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8')) or {} if path.is_file() else {}
    except yaml.YAMLError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}.") from error


def _evaluation(record: dict[str, Any], folder: Path) -> Evaluation:
    """The accuracy on the split that was kept for it, or else on the one that the checkpoint was chosen on."""
    chosen_on = record.get('val_split') or 'validation'
    for prefix, split, images in (
        ('test', record.get('test_split') or 'test', 'test_images'),
        ('val', chosen_on, 'val_images'),
    ):
        top1, top5 = record.get(f'{prefix}_top1'), record.get(f'{prefix}_top5')
        if top1 is None:
            continue
        if not all(isinstance(a, (int, float)) and math.isfinite(a) and 0 <= a <= 100 for a in (top1, top5 or 0)):
            raise CheckpointError(
                f"'{folder}' records {prefix}_top1 {top1} and {prefix}_top5 {top5}: an accuracy is a "
                'percentage from 0 to 100. Evaluate again with validate.py.'
            )
        return Evaluation(split, top1, top5, record.get('robust_top1'), record.get(images), chosen_on)
    raise CheckpointError(
        f"the run in '{folder}' was not evaluated: result.json has neither test_top1 nor val_top1. "
        'What is published says how good it is: train with a validation or a test split.'
    )


def load_model(run: Run) -> nn.Module:
    """The run's model on the CPU, in evaluation mode: a fresh timm model with the run's weights, loaded strictly.

    Raises:
        ConfigError: Its config.json holds model arguments that are refused.
        CheckpointError: timm does not know the architecture; the weights are unreadable, not finite, or not its own.
    """
    try:
        model = create_model(f'local-dir:{run.folder}', {})
    except AlfaError:
        raise
    except Exception as error:
        raise CheckpointError(f"timm cannot build what '{run.folder / 'config.json'}' describes: {error}.") from error
    if model.num_classes != run.record['num_classes']:
        raise CheckpointError(
            f"'{run.folder}' disagrees with itself: config.json has {model.num_classes} classes, "
            f'result.json {run.record["num_classes"]}.'
        )
    state = read_weights(run.weights)
    if faults := _weight_faults(model.state_dict(), state):
        raise CheckpointError(f"'{run.weights}' is not a checkpoint of {run.architecture}: {'; '.join(faults)}.")
    model.load_state_dict(state, strict=True)
    return model.eval()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file's tensors.

    Raises:
        CheckpointError: It is no such file.
    """
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"'{path}' is no readable safetensors file: {error}.") from error


def _weight_faults(expected: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> list[str]:
    both = [name for name in expected if name in state]
    groups = (
        ('missing keys', [name for name in expected if name not in state]),
        ('foreign keys', [name for name in state if name not in expected]),
        ('other shapes', [name for name in both if state[name].shape != expected[name].shape]),
        ('values that are not finite', [name for name in both if not torch.isfinite(state[name]).all()]),
    )
    return [
        f'{what}: {", ".join(names[:3])}{f" and {len(names) - 3} more" if len(names) > 3 else ""}'
        for what, names in groups
        if names
    ]


def check_name(run: Run, name: str, dataset_id: Optional[str] = None) -> None:
    """A repo called `architecture.tag` must hold that architecture, and one of our names what the name says.

    Args:
        dataset_id: The data set's id on the Hub, where the run's `--dataset` does not say it.

    Raises:
        HubError: It is another.
    """
    model = name.partition('.')[0]
    faults = []
    if '.' in name and timm.is_model(model) and model != run.architecture:
        faults.append(f'the run trained {run.architecture}')
    if name in TAGS and TAGS[name].method != run.record['task']:
        faults.append(f"the run's task was {run.record['task']}")
    known = run.dataset_as(dataset_id)
    if name in TAGS and known is not TAGS[name].dataset:
        title = known.title if known else f'{run.record["dataset"]}, {run.record["num_classes"]} classes'
        faults.append(
            f'its data set was {title}, not {TAGS[name].dataset.title}'
            + ('' if known else f' (if it was, give --dataset-id {TAGS[name].dataset.hub_id})')
        )
    if faults:
        raise HubError(f"'{name}' is not the name of this run: {'; '.join(faults)}. Give another --repo-id.")
