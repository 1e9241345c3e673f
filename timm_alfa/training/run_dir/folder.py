"""A run's folder: its name, and each file in it, whole at any moment."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, Mapping, Optional

import torch
import yaml
from timm.models._hub import save_config_for_hf

from timm_alfa.errors import CheckpointError, ConfigError
from timm_alfa.training.checkpoint.weights import link_or_copy, save_weights
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.utils import files
from timm_alfa.utils.files import sha256_of

MARKS = ('args.yaml', 'summary.csv', 'result.json', 'last')
# What timm says of the architecture's published weights, and is not true of ours.
OF_OTHER_WEIGHTS = ('description', 'origin_url', 'paper_name', 'paper_ids', 'notes', 'license', 'hf_hub_id', 'url')
BEST, LAST, HUB = 'model_best.safetensors', 'model_last.safetensors', 'model.safetensors'


def default_experiment(config: TrainConfig) -> str:
    """MODEL-TASK-DATASET, fit for a folder's name."""
    data = 'digits' if config.is_digits else (config.data.dataset or config.data.data_dir)
    model = config.model.model.partition(':')[2] or config.model.model
    parts = (model, config.task.task, data.rstrip('/').split('/')[-1])
    return '-'.join(re.sub(r'[^A-Za-z0-9_.]+', '_', part).strip('._') or 'x' for part in parts)


def is_run(path: Path) -> bool:
    """Whether a folder holds anything of a run."""
    return any((path / mark).exists() for mark in MARKS)


def unwritable(path: Path, error: OSError) -> ConfigError:
    """The error for a folder that cannot be made or written."""
    return ConfigError(f"cannot write in '{path}': {error.strerror}. Give another --output.")


def choose_folder(config: TrainConfig) -> Path:
    """Where this run lives: a new folder, or with --resume that of the run to go on with.

    Raises:
        ConfigError: The folder holds another run, or --resume names none.
    """
    options = config.run
    output = Path(options.output)
    if options.resume not in (None, 'auto'):
        path = Path(options.resume)
        if not is_run(path):
            raise ConfigError(
                f"--resume is '{options.resume}', which is no run's folder: give 'auto' or a folder that "
                'holds args.yaml and last/.'
            )
        return path
    if options.experiment is not None:
        path = output / options.experiment
        if is_run(path) and options.resume is None:
            raise ConfigError(
                f"folder '{path}' already holds a run: give another --experiment, or --resume auto to go on."
            )
        return path
    base = default_experiment(config)
    numbered = [output / base]
    while numbered[-1].exists():
        numbered.append(output / f'{base}-{len(numbered) + 1}')
    runs = [path for path in numbered if is_run(path)] if options.resume == 'auto' else []
    return runs[-1] if runs else numbered[-1]


class RunFolder:
    """The files of a run.

    Args:
        path: The folder; made, with its parents, by `create`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def create(self) -> None:
        """Makes the folder and tries to write in it.

        Raises:
            ConfigError: It cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            trial = self.path / '.trial'
            trial.write_text('')
            trial.unlink()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def save_args(self, options: dict[str, Any], environment: dict[str, Any]) -> None:
        """args.yaml: every resolved option, and what it ran on; `--config` reads it again."""
        text = yaml.safe_dump({**options, 'environment': environment}, sort_keys=False, allow_unicode=True)
        files.write_text(self.path / 'args.yaml', text)

    def save_summary(self, rows: list[dict[str, Any]]) -> None:
        """summary.csv: a row an epoch, columns in the order in which they first came up."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])
        files.write_text(self.path / 'summary.csv', text.getvalue())

    def save_config(self, model, pretrained_cfg: dict[str, Any], data_config: dict[str, Any], labels) -> None:
        """config.json in timm's form, describing these weights and not the architecture's published ones."""
        with files.replacing(self.path / 'config.json') as temporary:
            save_config_for_hf(
                model,
                str(temporary),
                model_config=dict(pretrained_cfg=pretrained_cfg, **({'label_names': list(labels)} if labels else {})),
                data_config=data_config,
            )
            content = json.loads(temporary.read_text())
            for key in OF_OTHER_WEIGHTS:
                content['pretrained_cfg'].pop(key, None)
            temporary.write_text(json.dumps(content, indent=2) + '\n')

    def save_model(self, state: Mapping[str, torch.Tensor], name: str) -> None:
        """A model's `plain_state`, for timm to read."""
        save_weights(state, self.path / name)
        if name == BEST:
            link_hub_name(self.path)

    def save_result(self, record: dict[str, Any]) -> None:
        """result.json."""
        files.write_json(self.path / 'result.json', record)

    def finished_result(self) -> dict[str, Any]:
        """The record of a run that has ended; empty where there is none."""
        try:
            found = json.loads((self.path / 'result.json').read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def best_sha256(self) -> Optional[str]:
        """Of the best weights' file, if there is one that can be read."""
        try:
            return sha256_of(self.path / BEST)
        except OSError:
            return None

    def remove_result(self) -> None:
        """Takes away the record of a run that goes on: until it has ended again it has none."""
        files.remove_quietly(self.path / 'result.json')


def link_hub_name(path: Path) -> None:
    """The name under which timm and the Hub look for weights, leading to the best ones; costs no space."""
    link = path / HUB
    if link.is_symlink():
        return
    try:
        link.symlink_to(BEST)
    except OSError:
        try:
            link_or_copy(path / BEST, link)
        except OSError as error:
            raise CheckpointError(files.write_fault(link, error)) from error


def _cell(value: Optional[Any]) -> Any:
    return '' if value is None else f'{value:.10g}' if isinstance(value, float) else value
