"""validate.py's command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence

from timm_alfa.data import DataConfig
from timm_alfa.errors import ConfigError
from timm_alfa.options import option, own_flag_errors
from timm_alfa.perturb.options import AttackConfig
from timm_alfa.training.options.checks import model_errors
from timm_alfa.training.options.config import InputConfig
from timm_alfa.training.options.outside import external_options
from timm_alfa.training.options.parser import (
    Given,
    Option,
    build_parser,
    environment_of,
    load_yaml,
    options_of_groups,
    read_command_line,
    resolve_groups,
)
from timm_alfa.utils.console import logger

DESCRIPTION = (
    'Evaluates a checkpoint: top-1, top-5 and loss on clean images, with --robust also top-1 under a PGD attack. The '
    'last line of output is a JSON record.'
)
# Arguments of models that have their own flags.
MODEL_FLAGS = {'num_classes': '--num-classes', 'in_chans': '--in-chans', 'img_size': '--img-size'}
DATA_KEYS = (
    'dataset',
    'data_dir',
    'train_split',
    'input_key',
    'target_key',
    'class_map',
    'dataset_download',
    'batch_size',
    'workers',
    'loader',
    'skip_corrupt',
    'pin_mem',
)
# Keys of a run's args.yaml that describe its data, and the keys that they have here.
FROM_RUN = {
    'dataset': 'dataset',
    'data_dir': 'data_dir',
    'input_key': 'input_key',
    'target_key': 'target_key',
    'class_map': 'class_map',
    'train_split': 'train_split',
    'val_split': 'split',
}


@dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoint, and what its model is."""

    checkpoint: Optional[str] = option(
        None, "weights file, folder of a run, 'local-dir:FOLDER' or 'hf-hub:OWNER/NAME'", metavar='PATH'
    )
    model: Optional[str] = option(None, 'timm model, if there is no config.json next to the checkpoint')
    pretrained: bool = option(False, "evaluate the model's pretrained weights; needs no --checkpoint")
    num_classes: Optional[int] = option(None, "number of classes (default: the checkpoint's)", low=1)
    model_kwargs: dict = option({}, 'additional arguments of the model, as name=value ...')
    channels_last: bool = option(False, 'use the channels_last memory layout')

    def errors(self, flag_name):
        if self.checkpoint is None and not (self.model and self.pretrained):
            yield (
                f'no model is named: pass {flag_name("checkpoint")} RUN, or '
                f'{flag_name("model")} NAME {flag_name("pretrained")}.'
            )
        if self.checkpoint is not None and self.pretrained:
            yield f'{flag_name("checkpoint")} and {flag_name("pretrained")} cannot be combined.'
        yield from own_flag_errors(self.model_kwargs, flag_name('model_kwargs'), MODEL_FLAGS)


@dataclass(frozen=True)
class SplitConfig:
    """Which part of the data."""

    split: str = option('validation', 'split to evaluate on; for the folder of a run, by default its --val-split')


@dataclass(frozen=True)
class RobustConfig:
    """Whether to attack."""

    robust: bool = option(False, 'also evaluate under a PGD attack')
    max_images: Optional[int] = option(
        None, 'attack this many images, drawn at random, the same ones every time (default: all)', low=1
    )


@dataclass(frozen=True)
class ReportConfig:
    """What is written besides the record."""

    per_class: Optional[str] = option(
        None,
        'write accuracy, precision and recall of each class, the confusion matrix and a picture of the most confident '
        "mistakes into this folder (without a value: 'per_class')",
        metavar='FOLDER',
    )
    predictions: Optional[str] = option(
        None, 'write label, prediction and probability of each image to this file, .csv or .parquet', metavar='FILE'
    )
    export_onnx: Optional[str] = option(
        None, 'write the model to this .onnx file, and compare its logits if onnxruntime is installed', metavar='FILE'
    )


GROUPS = {
    'checkpoint': CheckpointConfig,
    'input': InputConfig,
    'data': DataConfig,
    'split': SplitConfig,
    'report': ReportConfig,
    'robust': RobustConfig,
    'attack': AttackConfig,
}
TITLES = {
    'checkpoint': 'Model',
    'input': 'Input of the model',
    'data': 'Data',
    'split': 'Split',
    'report': 'Files to write',
    'robust': 'Robust accuracy',
    'attack': 'Attack of --robust',
}


@dataclass(frozen=True)
class ValidateConfig:
    """All options of validate.py."""

    checkpoint: CheckpointConfig
    input: InputConfig
    data: DataConfig
    split: SplitConfig
    report: ReportConfig = ReportConfig()
    robust: RobustConfig = RobustConfig()
    attack: AttackConfig = AttackConfig()


def all_options() -> list[Option]:
    """Every flag of validate.py."""
    return options_of_groups(GROUPS, DATA_KEYS)


def parse_args(argv: Optional[Sequence[str]] = None) -> ValidateConfig:
    """The resolved options.

    Raises:
        ConfigError: With all errors.
    """
    options = all_options()
    given, errors = read_command_line(build_parser('validate', DESCRIPTION, TITLES, options), argv, options)
    errors += fill_data_from_run(given)
    groups, found = resolve_groups(GROUPS, given)
    errors += [*found, *errors_across(given)]
    if not errors:
        errors += errors_in_timm(groups['checkpoint'], given)
    if errors:
        raise ConfigError(errors)
    for line in external_options(given, options):
        logger.info(line)
    return ValidateConfig(**groups)


def errors_across(given: Given) -> Iterator[str]:
    """Errors that involve more than one group."""
    if not given.values.get('robust'):
        for key in given.values:
            if key.startswith('attack_') or key == 'max_images':
                yield f'{given.flag_name(key)} has no effect without --robust: add it.'
    yield from batch_size_errors(given)
    if given.values.get('pretrained') and not names_data(given):
        yield '--pretrained does not say which data to use: add --dataset NAME or --data-dir FOLDER.'


def batch_size_errors(given: Given) -> Iterator[str]:
    """An error if the batch size is yet to be found."""
    if given.values.get('batch_size') == 'auto':
        yield '--batch-size auto is for training: pass a number.'


def errors_in_timm(checkpoint: CheckpointConfig, given: Given) -> Iterator[str]:
    """Errors that need timm's registries. timm takes seconds to import: ask once everything else is right."""
    from timm_alfa.models.arguments import argument_errors

    if checkpoint.model is not None:
        yield from model_errors(checkpoint.model)
    yield from argument_errors(checkpoint.model_kwargs, given.flag_name('model_kwargs'))


def names_data(given: Given) -> bool:
    """Whether the data are named."""
    return bool(given.values.get('dataset') or given.values.get('data_dir'))


def fill_data_from_run(given: Given) -> list[str]:
    """Without --dataset and --data-dir, takes the data from the args.yaml of the run; returns its errors."""
    if names_data(given) or not given.values.get('checkpoint'):
        return []
    path = Path(str(given.values['checkpoint']).removeprefix('local-dir:'))
    file = (path if path.is_dir() else path.parent) / 'args.yaml'
    if not file.is_file():
        return []
    content, error = load_yaml(str(file), '--checkpoint')
    found = {own: content.get(key) for key, own in FROM_RUN.items()}

    # the loader that 'auto' was resolved to
    found['loader'] = environment_of(content).get('loader') or content.get('loader')

    for key, value in found.items():
        if value and key not in given.values:
            given.inherit(key, value, str(file))
    return [error] if error else []
