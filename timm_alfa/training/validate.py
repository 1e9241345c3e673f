"""validate.py: a checkpoint's accuracy on a split, each image counted once."""

import json
import time
from typing import Any, NamedTuple, Optional, cast

import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.data import create_eval_loader
from timm_alfa.data.datasets.registry import title
from timm_alfa.training.evaluate import evaluate, evaluate_robust
from timm_alfa.training.options.validate_args import ValidateConfig
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.setup.build import evaluated_input, input_config
from timm_alfa.training.setup.launch import start_accelerate
from timm_alfa.training.setup.load_model import open_model
from timm_alfa.utils.console import logger
from timm_alfa.utils.distributed import gather
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import duration


class Prepared(NamedTuple):
    """What is evaluated, and on what.

    Attributes:
        loader: This process's share of the split.
        sha256: Of the file that the weights were read from; None if timm found it.
    """

    accelerator: Accelerator
    model: nn.Module
    loader: Any
    sha256: Optional[str]


def prepare(config: ValidateConfig) -> Prepared:
    """Starts accelerate, and opens the model and the data.

    Raises:
        AlfaError: Some options cannot be satisfied.
    """
    accelerator = start_accelerate()

    # the model
    model, sha256 = open_model(config.checkpoint, config.input)
    inputs = input_config(config.input, model)
    model.to(accelerator.device)
    if config.checkpoint.channels_last:
        model.to(memory_format=torch.channels_last)

    # the data
    loader = create_eval_loader(
        config.data,
        model_config=inputs,
        split=config.split.split,
        num_classes=cast(Any, model).num_classes,
        class_names=label_names(model),
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        channels_last=config.checkpoint.channels_last,
    )
    inputs = evaluated_input(inputs, config.input, loader.name)

    logger.info(
        'model: %s, input %s; %d images of %s, split %s',
        config.checkpoint.checkpoint or config.checkpoint.model,
        'x'.join(map(str, inputs['input_size'])),
        loader.images,
        title(config.data),
        loader.subset.source.split,
    )
    return Prepared(accelerator, model, loader, sha256)


def label_names(model: nn.Module) -> Optional[list[str]]:
    """The names of a model's classes, if its config.json has one for each output."""
    names = cast(Any, model).pretrained_cfg.get('label_names')
    return names if isinstance(names, list) and len(names) == cast(Any, model).num_classes else None


def validate(config: ValidateConfig, prepared: Prepared) -> dict[str, Any]:
    """Evaluates a model and returns the record."""
    accelerator, model, loader, sha256 = prepared
    began = time.perf_counter()
    metrics = evaluate(model, loader, accelerator)
    seconds = time.perf_counter() - began

    metrics['robust_top1'], attack = None, None
    if config.robust.robust:
        attack = config.attack.options()
        inputs = input_config(config.input, model)
        metrics.update(evaluate_robust(model, loader, accelerator, mean=inputs['mean'], std=inputs['std'], **attack))

    skipped = set(gather(accelerator, sorted(loader.skipped_indices)))
    record = dict(
        status='finished',
        model=config.checkpoint.model or config.checkpoint.checkpoint,
        checkpoint=config.checkpoint.checkpoint,
        checkpoint_sha256=sha256,
        dataset=config.data.name,
        split=loader.subset.source.split,
        **metrics,
        attack=attack,
        num_classes=model.num_classes,
        params=sum(p.numel() for p in model.parameters()),
        batch_size=config.data.batch_size,
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
    return redact(record)


def report(accelerator: Accelerator, result: dict[str, Any]) -> None:
    """Logs the scores, and prints the record as the last line of stdout; from the main process."""
    if not accelerator.is_main_process:
        return
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
        logger.warning('warning: %d images could not be read and were skipped', result['skipped_images'])
    if result['attack']:
        logger.info(
            'top-1 under PGD-%d, eps %.3g/255: %.2f',
            result['attack']['steps'],
            result['attack']['eps'] * 255,
            result['robust_top1'],
        )
    print(json.dumps(result), flush=True)
