"""validate.py: a checkpoint's accuracy on a split, each image counted once."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.data import DataConfig, create_eval_loader
from timm_alfa.data.datasets.registry import title
from timm_alfa.errors import ConfigError
from timm_alfa.options import option
from timm_alfa.perturb.pgd import AttackConfig
from timm_alfa.training.build import evaluated_input, input_config
from timm_alfa.training.console import logger
from timm_alfa.training.evaluate import evaluate, evaluate_robust
from timm_alfa.training.launch import start_accelerate
from timm_alfa.training.load_model import CheckpointConfig, open_model
from timm_alfa.training.options.config import InputConfig
from timm_alfa.training.options.outside import reached
from timm_alfa.training.options.parser import (
    ENVIRONMENT,
    Given,
    build_parser,
    group_options,
    load_yaml,
    read_command_line,
    resolve_groups,
)
from timm_alfa.training.run_dir import provenance
from timm_alfa.utils.distributed import gather
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import duration

DESCRIPTION = (
    'Evaluates a checkpoint: top-1, top-5 and loss on clean images, with --robust also top-1 under a PGD attack. The '
    'last line of output is a JSON record.'
)
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
# What a run's args.yaml says of its data, by the key that it has here.
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
class SplitConfig:
    """Which part of the data."""

    split: str = option('validation', 'split to evaluate on; for the folder of a run, by default its --val-split')


@dataclass(frozen=True)
class RobustConfig:
    """Whether to attack."""

    robust: bool = option(False, 'also evaluate under a PGD attack')


GROUPS = {
    'checkpoint': CheckpointConfig,
    'input': InputConfig,
    'data': DataConfig,
    'split': SplitConfig,
    'robust': RobustConfig,
    'attack': AttackConfig,
}
TITLES = {
    'checkpoint': 'Model',
    'input': 'Input of the model',
    'data': 'Data',
    'split': 'Split',
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
    robust: RobustConfig = RobustConfig()
    attack: AttackConfig = AttackConfig()


def parse_args(argv: Optional[Sequence[str]] = None) -> ValidateConfig:
    """The resolved options.

    Raises:
        ConfigError: With every fault.
    """
    options = [
        item
        for name, cls in GROUPS.items()
        for item in group_options(name, cls)
        if name != 'data' or item.key in DATA_KEYS
    ]
    given, errors = read_command_line(build_parser('validate.py', DESCRIPTION, TITLES, options), argv, options)
    errors += fill_from_run(given)
    groups, found = resolve_groups(GROUPS, given)
    if not given.values.get('robust'):
        found += [
            f'{given.flag_name(key)} has no effect without --robust: add it.'
            for key in given.values
            if key.startswith('attack_')
        ]
    if given.values.get('pretrained') and not (given.values.get('dataset') or given.values.get('data_dir')):
        found.append('--pretrained says nothing of the data: add --dataset NAME or --data-dir FOLDER.')
    if errors + found:
        raise ConfigError(errors + found)
    for line in reached(given, options):
        logger.info(line)
    return ValidateConfig(**groups)


def fill_from_run(given: Given) -> list[str]:
    """Without --dataset and --data-dir, a run is scored on the data that its args.yaml names; returns its errors."""
    if given.values.get('dataset') or given.values.get('data_dir') or not given.values.get('checkpoint'):
        return []
    path = Path(str(given.values['checkpoint']).removeprefix('local-dir:'))
    file = (path if path.is_dir() else path.parent) / 'args.yaml'
    if not file.is_file():
        return []
    content, error = load_yaml(str(file), '--checkpoint')
    environment = content.get(ENVIRONMENT)
    loader = environment.get('loader') if isinstance(environment, dict) else None
    found = {own: content.get(key) for key, own in FROM_RUN.items()}
    found['loader'] = loader or content.get('loader')  # what 'auto' came to
    for own, value in found.items():
        if value and own not in given.values:
            given.values[own], given.source[own] = value, str(file)
    return [error] if error else []


def validate(
    config: ValidateConfig,
    accelerator: Accelerator,
    model: nn.Module,
    loader,
    sha256: Optional[str],
) -> dict[str, Any]:
    """Scores a model and returns the record.

    Args:
        sha256: Of the file that its weights were read from.
    """
    began = time.perf_counter()
    metrics = evaluate(model, loader, accelerator)
    seconds = time.perf_counter() - began
    metrics['robust_top1'], attack = None, config.attack.options() if config.robust.robust else None
    if attack:
        inputs = input_config(config.input, model)
        metrics.update(evaluate_robust(model, loader, accelerator, mean=inputs['mean'], std=inputs['std'], **attack))
    options, data = config.checkpoint, config.data
    skipped = set(gather(accelerator, sorted(loader.skipped_indices)))
    return redact(
        dict(
            status='finished',
            model=options.model or options.checkpoint,
            checkpoint=options.checkpoint,
            checkpoint_sha256=sha256,
            dataset=data.name,
            split=loader.subset.source.split,
            **metrics,
            attack=attack,
            num_classes=model.num_classes,
            params=sum(p.numel() for p in model.parameters()),
            batch_size=data.batch_size,
            num_processes=accelerator.num_processes,
            mixed_precision=accelerator.mixed_precision,
            device=provenance.device_name(accelerator.device),
            seconds=seconds,
            images_per_second=metrics['count'] / seconds,
            skipped_images=len(skipped),
            versions=provenance.versions(),
            commit=provenance.commit(),
            command=provenance.command(),
        )
    )


def run(config: ValidateConfig) -> tuple[Accelerator, nn.Module, Any, Optional[str]]:
    """Devices, model, loader, and the sha256 of the weights' file.

    Raises:
        AlfaError: Something asked for cannot be had.
    """
    accelerator = start_accelerate()
    model, sha256 = open_model(config.checkpoint, config.input)
    inputs = input_config(config.input, model)
    model.to(accelerator.device)
    if config.checkpoint.channels_last:
        model.to(memory_format=torch.channels_last)
    loader = create_eval_loader(
        config.data,
        model_config=inputs,
        split=config.split.split,
        num_classes=model.num_classes,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        channels_last=config.checkpoint.channels_last,
    )
    inputs = evaluated_input(inputs, config.input, loader.name)
    name = config.checkpoint.checkpoint or config.checkpoint.model
    logger.info(
        'model: %s, input %s; %d images of %s, split %s',
        name,
        'x'.join(map(str, inputs['input_size'])),
        loader.images,
        title(config.data),
        loader.subset.source.split,
    )
    return accelerator, model, loader, sha256


def report(accelerator: Accelerator, result: dict[str, Any]) -> None:
    """A line for people on stderr, and the record as the last line of stdout."""
    if accelerator.is_main_process:
        logger.info(
            'top-1 %.2f, top-5 %.2f, loss %.4f: %d of %d images in %s',
            result['top1'],
            result['top5'],
            result['loss'],
            result['correct'],
            result['count'],
            duration(result['seconds']),
        )
        if result['skipped_images']:
            logger.warning('warning: %d images could not be read and were left out', result['skipped_images'])
        if result['attack']:
            logger.info(
                'top-1 under PGD-%d, eps %.3g/255: %.2f',
                result['attack']['steps'],
                result['attack']['eps'] * 255,
                result['robust_top1'],
            )
        print(json.dumps(result), flush=True)
