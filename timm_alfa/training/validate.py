"""validate.py: a checkpoint's accuracy on a split, each image counted once."""
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import timm
import torch
from accelerate import Accelerator
from timm.models import resolve_model_input_args
from timm.models._hub import load_model_config_from_path
from torch import nn

from timm_alfa.attack import AttackConfig
from timm_alfa.data import DataConfig, create_eval_loader
from timm_alfa.errors import AlfaError, CheckpointError, ConfigError
from timm_alfa.options import option
from timm_alfa.training import record
from timm_alfa.training.build import input_config
from timm_alfa.training.checks import model_faults
from timm_alfa.training.cli import (
    Given,
    build_parser,
    group_options,
    read_command_line,
    read_yaml,
    resolve_groups,
)
from timm_alfa.training.console import logger
from timm_alfa.training.evaluate import evaluate, evaluate_robust
from timm_alfa.training.files import first_line
from timm_alfa.training.gathering import gather
from timm_alfa.training.setup import start_accelerate
from timm_alfa.training.units import duration
from timm_alfa.training.weights import find_weights, load_weights, read_weights
from timm_alfa.zoo.weights import sha256_of

DESCRIPTION = ('Scores a checkpoint: top-1, top-5 and loss of clean images, with --robust top-1 under PGD too, as one '
               'JSON line at the end.')
DATA_KEYS = ('dataset', 'data_dir', 'input_key', 'target_key', 'class_map', 'dataset_download', 'batch_size', 'workers',
             'loader', 'skip_corrupt', 'pin_mem')
# What a run's args.yaml says of its data, by the key that it has here.
FROM_RUN = {'dataset': 'dataset', 'data_dir': 'data_dir', 'input_key': 'input_key', 'target_key': 'target_key',
            'class_map': 'class_map', 'val_split': 'split'}


@dataclass(frozen=True)
class CheckpointConfig:
    """What is scored."""

    checkpoint: Optional[str] = option(
        None, "A weights file, a run's folder, 'local-dir:FOLDER' or 'hf-hub:OWNER/NAME'.")
    model: Optional[str] = option(None, 'The timm model, where no config.json beside the checkpoint says it.')
    pretrained: bool = option(False, "Score the model's published weights; needs no --checkpoint.")
    num_classes: Optional[int] = option(None, 'Classes of the model (none: as the checkpoint says).', low=1)
    in_chans: Optional[int] = option(None, 'Input channels (none: the model\'s).', low=1)
    img_size: Optional[int] = option(None, 'Side of the input image in pixels (none: the model\'s).', low=1)
    mean: Optional[tuple[float, ...]] = option(None, 'Mean of each input channel, in [0, 1] (none: the model\'s).')
    std: Optional[tuple[float, ...]] = option(None, 'Deviation of each input channel (none: the model\'s).', above=0)
    interpolation: Optional[str] = option(
        None, 'How images are resized (none: the model\'s).', choices=('bilinear', 'bicubic', 'nearest'))
    crop_pct: Optional[float] = option(None, 'Share of the side kept by the crop (none: the model\'s).', above=0)
    model_kwargs: dict = option({}, 'Further arguments of the model: name=value ...')
    channels_last: bool = option(False, 'Channels-last memory layout.')

    def faults(self, spell):
        if self.checkpoint is None and not (self.model and self.pretrained):
            yield f"nothing to score: give {spell('checkpoint')}, or {spell('model')} NAME {spell('pretrained')}."
        if self.checkpoint is not None and self.pretrained:
            yield f"{spell('checkpoint')} and {spell('pretrained')} exclude each other."
        if self.model is not None:
            yield from model_faults(self.model)


@dataclass(frozen=True)
class SplitConfig:
    """Which part of the data."""

    split: str = option('validation', "The split to score; of a run's folder, the run's --val-split.")


@dataclass(frozen=True)
class RobustConfig(AttackConfig):
    """Whether to attack, and how."""

    robust: bool = option(False, 'Score the images under PGD too.')


GROUPS = {'checkpoint': CheckpointConfig, 'data': DataConfig, 'split': SplitConfig, 'robust': RobustConfig}
TITLES = {'checkpoint': 'Model', 'data': 'Data', 'split': 'Split', 'robust': 'Robust accuracy'}


@dataclass(frozen=True)
class ValidateConfig:
    """All options of validate.py."""

    checkpoint: CheckpointConfig
    data: DataConfig
    split: SplitConfig
    robust: RobustConfig = RobustConfig()


def parse_args(argv: Optional[Sequence[str]] = None) -> ValidateConfig:
    """The resolved options.

    Raises:
        ConfigError: With every fault.
    """
    options = [item for name, cls in GROUPS.items() for item in group_options(name, cls)
               if name != 'data' or item.key in DATA_KEYS]
    given, faults = read_command_line(build_parser('validate.py', DESCRIPTION, TITLES, options), argv, options)
    fill_from_run(given)
    groups, found = resolve_groups(GROUPS, given)
    if not given.values.get('robust'):
        found += [f'{given.spell(key)} has no effect without --robust: add it.'
                  for key in given.values if key.startswith('attack_')]
    if faults + found:
        raise ConfigError(faults + found)
    return ValidateConfig(**groups)


def fill_from_run(given: Given) -> None:
    """Without --dataset and --data-dir, a run is scored on the data that its args.yaml names."""
    if given.values.get('dataset') or given.values.get('data_dir') or not given.values.get('checkpoint'):
        return
    path = Path(str(given.values['checkpoint']).removeprefix('local-dir:'))
    file = (path if path.is_dir() else path.parent) / 'args.yaml'
    if not file.is_file():
        return
    content, _ = read_yaml(str(file), group_options('data', DataConfig))
    for key, own in FROM_RUN.items():
        if content.get(key) and own not in given.values:
            given.values[own], given.source[own] = content[key], str(file)


def open_model(options: CheckpointConfig) -> tuple[nn.Module, Optional[str]]:
    """The model with the weights to score, and the sha256 of their file: None where timm finds it.

    Raises:
        ConfigError: The model cannot be built, or is not the one that --model names.
        CheckpointError: The weights cannot be read, or do not fit it.
    """
    name, weights = locate(options)
    state, sha256 = (None, None) if weights is None else (read_weights(weights), sha256_of(weights))
    arguments = dict(num_classes=options.num_classes, in_chans=options.in_chans, **options.model_kwargs)
    if state is not None and name == options.model and not options.num_classes:
        arguments['num_classes'] = head_classes(name, state)
    try:
        resolved = resolve_model_input_args(name, dict(img_size=options.img_size), **arguments)
        model = timm.create_model(**resolved, pretrained=weights is None)
    except AlfaError:
        raise
    except Exception as error:  # whatever a constructor, the Hub or a file raises, it is about these options
        raise ConfigError(f"model '{name}' cannot be built: {first_line(error)}") from error
    built = model.pretrained_cfg['architecture']
    if options.model not in (None, name) and options.model.partition('.')[0] != built:
        raise ConfigError(f"--model is '{options.model}', but '{options.checkpoint}' holds {built}, by its config.json."
                          ' Leave --model out.')
    if state is not None:
        load_weights(model, state, options.checkpoint)
    return model, sha256


def locate(options: CheckpointConfig) -> tuple[str, Optional[Path]]:
    """timm's name for the model, and the file with its weights: None where timm finds them by that name.

    A config.json beside the weights goes before --model: it also has the normalisation and the model's arguments.

    Raises:
        CheckpointError: There are no weights, or nothing says for what model.
    """
    if options.checkpoint is None:
        return options.model, None
    if options.checkpoint.startswith(('hf-hub:', 'hf_hub:')):
        return options.checkpoint, None
    weights = find_weights(options.checkpoint.removeprefix('local-dir:'))
    if is_described(weights.parent):
        return f'local-dir:{weights.parent}', weights
    if options.model is None:
        raise CheckpointError(f"no config.json beside '{weights}' says what model it is for: give --model.")
    return options.model, weights


def is_described(folder: Path) -> bool:
    """Whether a config.json in timm's form says what model the weights in a folder are for.

    Raises:
        CheckpointError: It is there, but cannot be read.
    """
    try:
        load_model_config_from_path(folder)
    except (FileNotFoundError, KeyError):  # none, or another program's
        return False
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"'{folder / 'config.json'}' cannot be read: {first_line(error)}. Mend or remove it.") from error
    return True


def head_classes(name: str, state: Mapping[str, torch.Tensor]) -> Optional[int]:
    """How many classes a model's weights are for, by the shape of their classifier; None if that cannot be told."""
    cfg = timm.models.get_pretrained_cfg(name)
    head = cfg.classifier if cfg is not None else None
    weight = state.get(f'{head if isinstance(head, str) else next(iter(head or ()), None)}.weight')
    return weight.shape[0] if weight is not None else None


def validate(
        config: ValidateConfig, accelerator: Accelerator, model: nn.Module, loader, sha256: Optional[str],
) -> dict[str, Any]:
    """Scores a model and returns the record.

    Args:
        sha256: Of the file that its weights were read from.
    """
    began = time.perf_counter()
    metrics = evaluate(model, loader, accelerator)
    seconds = time.perf_counter() - began
    metrics['robust_top1'], attack = None, config.robust.options() if config.robust.robust else None
    if attack:
        inputs = input_config(config.checkpoint, model)
        metrics.update(evaluate_robust(model, loader, accelerator, mean=inputs['mean'], std=inputs['std'], **attack))
    options, data = config.checkpoint, config.data
    skipped = set(gather(accelerator, sorted(loader.skipped_indices)))
    return record.redact(dict(
        status='finished', model=options.model or options.checkpoint, checkpoint=options.checkpoint,
        checkpoint_sha256=sha256,
        dataset=data.dataset or data.data_dir or 'digits', split=loader.part.source.split, **metrics, attack=attack,
        num_classes=model.num_classes, params=sum(p.numel() for p in model.parameters()), batch_size=data.batch_size,
        num_processes=accelerator.num_processes, mixed_precision=accelerator.mixed_precision,
        device=record.device_name(accelerator.device), seconds=seconds, images_per_second=metrics['count'] / seconds,
        skipped_images=len(skipped), versions=record.versions(), commit=record.commit(), command=record.command()))


def run(config: ValidateConfig) -> tuple[Accelerator, nn.Module, Any, Optional[str]]:
    """Devices, model, loader, and the sha256 of the weights' file.

    Raises:
        AlfaError: Something asked for cannot be had.
    """
    accelerator = start_accelerate()
    model, sha256 = open_model(config.checkpoint)
    inputs = input_config(config.checkpoint, model)
    model.to(accelerator.device)
    if config.checkpoint.channels_last:
        model.to(memory_format=torch.channels_last)
    loader = create_eval_loader(
        config.data, model_config=inputs, split=config.split.split, num_classes=model.num_classes,
        rank=accelerator.process_index, world_size=accelerator.num_processes, device=accelerator.device,
        channels_last=config.checkpoint.channels_last)
    data = config.data.dataset or config.data.data_dir or 'the embedded digits'
    name = config.checkpoint.checkpoint or config.checkpoint.model
    logger.info('model: %s, input %s; %d images of %s, split %s', name, 'x'.join(map(str, inputs['input_size'])),
                loader.images, data, config.split.split)
    return accelerator, model, loader, sha256


def report(accelerator: Accelerator, result: dict[str, Any]) -> None:
    """A line for people on stderr, and the record as the last line of stdout."""
    if accelerator.is_main_process:
        logger.info('top-1 %.2f, top-5 %.2f, loss %.4f: %d of %d images in %s', result['top1'], result['top5'],
                    result['loss'], result['correct'], result['count'], duration(result['seconds']))
        if result['skipped_images']:
            logger.warning('warning: %d images could not be read and were left out', result['skipped_images'])
        if result['attack']:
            logger.info('top-1 under PGD-%d, eps %.3g/255: %.2f', result['attack']['steps'],
                        result['attack']['eps'] * 255, result['robust_top1'])
        print(json.dumps(result), flush=True)
