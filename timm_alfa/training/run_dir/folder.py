"""A run's folder: which one it is, and its files, each of them complete at any moment."""

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Union

import torch
from timm.models._hub import save_config_for_hf

from timm_alfa.errors import ConfigError
from timm_alfa.training.checkpoint.state_file import MAX_COUNT, history_errors
from timm_alfa.training.checkpoint.store import refuse_link, state_folders
from timm_alfa.training.checkpoint.weights import save_weights
from timm_alfa.training.checkpoint.write_errors import write_errors
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.options.parser import ENVIRONMENT
from timm_alfa.utils import files
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.plain_data import dump_yaml, read_json, read_yaml
from timm_alfa.utils.text import shorten_list

LOCK, STATES = '.lock', 'last'
MOST = 240  # characters of a name; file systems allow 255
MARKS = ('args.yaml', 'summary.csv', 'result.json', STATES)
TRACKERS = ('timm_alfa', 'wandb')  # folders of tensorboard and wandb
# What a run leaves that ended before its first state.
PROBED = ('probe.json', 'probe.png')  # the files that --probe writes
UNTRAINED = {LOCK, 'args.yaml', 'config.json', STATES, *TRACKERS, *PROBED}
# What timm says about the architecture's published weights, and is not true of ours.
OF_OTHER_WEIGHTS = ('description', 'origin_url', 'paper_name', 'paper_ids', 'notes', 'license', 'hf_hub_id', 'url')
AMONG_BEST = 'best'  # the folder of the --num-best best weights
BEST, LAST, HUB = 'model_best.safetensors', 'model_last.safetensors', 'model.safetensors'


def default_experiment(config: TrainConfig) -> str:
    """MODEL-TASK-DATASET, as a valid name of a folder, with room for a number."""
    model = config.model.model.partition(':')[2] or config.model.model
    parts = (model, config.task.task, config.data.short_name)
    name = '-'.join(re.sub(r'[^A-Za-z0-9_.]+', '_', part).strip('._') or 'x' for part in parts)
    return name[:MOST]


def is_run(path: Path) -> bool:
    """Whether a folder holds anything of a run."""
    return any((path / mark).exists() for mark in MARKS)


def is_resumable(path: Path) -> bool:
    """Whether a folder holds a run of train.py: a complete state, or an args.yaml that says what it ran on."""
    if state_folders(path / STATES):
        return True
    try:
        content = read_yaml(path / 'args.yaml')
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and ENVIRONMENT in content  # timm's train.py writes an args.yaml without it


def is_untrained(path: Path) -> bool:
    """Whether a folder holds a run of train.py that ended before its first state: nothing that is of value."""
    names = {each.name for each in path.iterdir() if not files.TEMPORARY.fullmatch(each.name)}
    return names <= UNTRAINED and is_resumable(path) and not state_folders(path / STATES)


def unwritable(path: Union[str, Path], error: OSError) -> ConfigError:
    """The error for a folder that cannot be made or written."""
    return ConfigError(f"cannot write in '{path}': {error.strerror}. Use another --output.")


def choose_folder(config: TrainConfig) -> Path:
    """The folder of this run: a new one, or with --resume that of the run to resume. Writes nothing.

    Raises:
        ConfigError: The folder holds another run or other files, cannot be used, or --resume names no run.
        CheckpointError: Its `last` is a symbolic link.
    """
    options = config.run
    resume = options.resume is not None
    try:
        if options.resume not in (None, 'auto'):
            path = _resumed_folder(options.resume)
        elif options.experiment is not None:
            path = _named_folder(Path(options.output) / options.experiment, resume)
        else:
            path = _numbered_folder(Path(options.output) / default_experiment(config), resume)
        refuse_link(path / STATES)
    except OSError as error:
        raise unwritable(error.filename or options.output, error) from error
    return path


def _resumed_folder(resume: str) -> Path:
    path = Path(resume)
    try:
        is_file = path.is_file()
        resumable = path.is_dir() and any(path.iterdir()) and is_resumable(path)
    except OSError as error:
        raise ConfigError(f"--resume is '{resume}', which cannot be read: {error.strerror}.") from error
    if is_file:
        raise ConfigError(
            f"--resume is '{resume}', which is a file: pass the folder of a run, or start from the weights in the "
            f'file with --initial-checkpoint {resume}'
        )
    if not resumable:
        raise ConfigError(
            f"--resume is '{resume}', which is not a run's folder: pass 'auto' or a folder with args.yaml and last/."
        )
    return path


def _named_folder(path: Path, resume: bool) -> Path:
    if is_resumable(path) and (resume or is_untrained(path)):
        return path
    if not resume and is_run(path):
        raise ConfigError(
            f"folder '{path}' already holds a run: use another --experiment, or --resume auto to resume it."
        )
    if names := foreign_files(path):
        raise ConfigError(
            f"folder '{path}' is not empty and does not hold a run, but {shorten_list(names, 3)}: "
            'use another --experiment or --output.'
        )
    return path


def _numbered_folder(base: Path, resume: bool) -> Path:
    """The first free name of BASE, BASE-2, ...; to resume, the last of those before it that holds a run."""
    taken = []
    path = base
    while (path.exists() or path.is_symlink()) and not is_probed(path):
        taken.append(path)
        path = base.with_name(f'{base.name}-{len(taken) + 1}')

    runs = [each for each in taken if is_resumable(each)] if resume else []
    return runs[-1] if runs else path


def foreign_files(path: Path) -> list[str]:
    """Names in a folder that are not from a start of train.py which ended before it was a run."""
    if not path.is_dir():
        return []
    names = (each.name for each in path.iterdir())
    return sorted(name for name in names if name not in (LOCK, *PROBED) and not files.TEMPORARY.fullmatch(name))


def is_probed(path: Path) -> bool:
    """Whether a folder holds nothing but what --probe has written: it is free for a run."""
    return path.is_dir() and not path.is_symlink() and {each.name for each in path.iterdir()} == {*PROBED}


class RunFolder:
    """The files of a run.

    Args:
        path: The folder; made, with its parents, by `create`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def create(self) -> None:
        """Makes the folder, tries to write in it, and removes what a killed run left under temporary names.

        Raises:
            ConfigError: It cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            files.check_writable(self.path)
            files.remove_leftovers(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def save_args(self, options: dict[str, Any], environment: dict[str, Any]) -> None:
        """Writes args.yaml: every resolved option, and what the run ran on. `--config` reads it again."""
        content = {**options, ENVIRONMENT: environment}
        self._write_text('args.yaml', dump_yaml(content))

    def save_summary(self, rows: list[dict[str, Any]]) -> None:
        """Writes summary.csv: one row per epoch, columns in the order in which they first occur."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})
        self._write_text('summary.csv', text.getvalue())

    def save_config(self, model, pretrained_cfg: dict[str, Any], data_config: dict[str, Any], labels) -> None:
        """Writes config.json in timm's form, describing these weights and not the architecture's published ones."""
        model_config: dict[str, Any] = dict(pretrained_cfg=pretrained_cfg)
        if labels:
            model_config['label_names'] = list(labels)
        path = self.path / 'config.json'
        with write_errors(path), files.atomic_file(path) as temporary:
            save_config_for_hf(model, str(temporary), model_config=model_config, data_config=data_config)
            content = json.loads(temporary.read_text())
            for key in OF_OTHER_WEIGHTS:
                content['pretrained_cfg'].pop(key, None)
            content['model_args'] = without_num_classes(content.get('model_args', {}))
            temporary.write_text(json.dumps(content, indent=2) + '\n')

    def save_model(self, state: Mapping[str, torch.Tensor], name: str) -> None:
        """Writes a model's `plain_state`, for timm to read."""
        save_weights(state, self.path / name)
        if name == BEST:
            link_hub_name(self.path)

    def save_among_best(self, state: Mapping[str, torch.Tensor], epoch: int, kept: Sequence[int]) -> None:
        """Writes an epoch's weights to best/, if it is among the best, and removes those that no longer are.

        Args:
            epoch: Counted from 1.
            kept: All epochs that are among the best.

        Raises:
            CheckpointError: The folder is a symbolic link, or cannot be written.
        """
        folder = self.path / AMONG_BEST
        refuse_link(folder)
        with write_errors(folder):
            folder.mkdir(exist_ok=True)
        if epoch in kept:
            save_weights(state, folder / _best_name(epoch))
        names = {_best_name(each) for each in kept}
        for path in folder.iterdir():
            if re.fullmatch(_best_name(r'\d+'), path.name) and path.name not in names:
                files.remove_quietly(path)

    def save_result(self, record: dict[str, Any]) -> None:
        """Writes result.json."""
        path = self.path / 'result.json'
        with write_errors(path):
            files.write_json(path, record)

    def _write_text(self, name: str, text: str) -> None:
        path = self.path / name
        with write_errors(path):
            files.write_text(path, text)

    def save_probe(self, content: dict[str, Any], picture: bytes) -> None:
        """Writes probe.json and probe.png."""
        text, image = (self.path / name for name in PROBED)
        with write_errors(text):
            files.write_json(text, content)
        with write_errors(image), files.atomic_file(image) as temporary:
            temporary.write_bytes(picture)

    def finished_result(self) -> dict[str, Any]:
        """The record of a finished run; empty if there is none, or none that train.py wrote."""
        try:
            found = read_json(self.path / 'result.json')
        except (OSError, ValueError):
            return {}
        return found if is_record(found) else {}

    def best_sha256(self) -> Optional[str]:
        """The sha256 of the best weights' file; None if it cannot be read."""
        try:
            return sha256_of(self.path / BEST)
        except OSError:
            return None

    def remove_result(self) -> None:
        """Removes the record of a run that is resumed: it has none until it is finished again."""
        files.remove_quietly(self.path / 'result.json')


def _best_name(epoch: Union[int, str]) -> str:
    """The name of the weights of an epoch in best/; of a pattern for the number, the pattern of all names."""
    return f'epoch_{epoch}.safetensors'


def without_num_classes(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model without the number of classes, which config.json has at its top.

    timm reads it there. transformers does, too, and passes it on together with these arguments: twice is an error.
    """
    return {key: value for key, value in model_args.items() if key != 'num_classes'}


def is_record(found: Any) -> bool:
    """Whether the content of a result.json is a mapping in which a resumed run finds what it looks for."""
    if not isinstance(found, dict) or any(history_errors(found.get('continued', []), 'continued')):
        return False
    reads = found.get('test_reads', 1)
    return type(reads) is int and 0 <= reads < MAX_COUNT


def link_hub_name(folder: Path) -> None:
    """Gives the best weights the name under which timm and the Hub look for them, without a second copy."""
    link = folder / HUB
    if link.is_symlink() and os.readlink(link) == BEST:
        return
    with write_errors(link):
        files.atomic_link(link, BEST)


def _cell(value: Optional[Any]) -> Any:
    if value is None:
        return ''
    return f'{value:.10g}' if isinstance(value, float) else value
