"""validate.py: a checkpoint's accuracy on a split, each image counted once."""

import json
import time
from functools import partial
from typing import Any, NamedTuple, Optional, cast

import torch
from accelerate import Accelerator
from torch import nn

from timm_alfa.data import create_eval_loader
from timm_alfa.data.datasets.base import Source
from timm_alfa.data.datasets.registry import title
from timm_alfa.training.evaluate import evaluate, evaluate_robust
from timm_alfa.training.options.validate_args import ReportConfig, ValidateConfig
from timm_alfa.training.report.folder import check_report_folder, write_report
from timm_alfa.training.report.onnx_export import check_onnx_file, write_onnx
from timm_alfa.training.report.output_file import TABLES, check_output_file
from timm_alfa.training.report.predictions import Collector, Predictions, class_names, write_predictions
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.setup.build import evaluated_input, input_config
from timm_alfa.training.setup.launch import start_accelerate
from timm_alfa.training.setup.load_model import label_names, open_model
from timm_alfa.utils.console import logger
from timm_alfa.utils.distributed import gather, on_main
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import duration


class Prepared(NamedTuple):
    """What is evaluated, and on what.

    Attributes:
        loader: This process's share of the split.
        sha256: Of the file that the weights were read from; None if timm found it.
        attacked: This process's share of the images that are attacked, or None.
    """

    accelerator: Accelerator
    model: nn.Module
    loader: Any
    sha256: Optional[str]
    attacked: Any


def prepare(config: ValidateConfig) -> Prepared:
    """Starts accelerate, and opens the model and the data.

    Raises:
        AlfaError: Some options cannot be satisfied.
    """
    accelerator = start_accelerate()
    on_main(accelerator, check_outputs, config.report)

    # the model
    model, sha256 = open_model(config.checkpoint, config.input)
    inputs = input_config(config.input, model)
    model.to(accelerator.device)
    if config.checkpoint.channels_last:
        model.to(memory_format=torch.channels_last)

    # the data
    create = partial(
        create_eval_loader,
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
    loader = create()
    attacked = None
    if config.robust.robust:
        attacked = loader if config.robust.max_images is None else create(most=config.robust.max_images)
    inputs = evaluated_input(inputs, config.input, loader.name)

    logger.info(
        'model: %s, input %s; %d images of %s, split %s',
        config.checkpoint.checkpoint or config.checkpoint.model,
        'x'.join(map(str, inputs['input_size'])),
        loader.images,
        title(config.data),
        loader.subset.source.split,
    )
    return Prepared(accelerator, model, loader, sha256, attacked)


def check_outputs(options: ReportConfig) -> None:
    """Checks that what is to be written can be, before anything is evaluated.

    Raises:
        ConfigError: It cannot.
    """
    if options.per_class is not None:
        check_report_folder(options.per_class)
    if options.predictions is not None:
        check_output_file('--predictions', options.predictions, TABLES)
    if options.export_onnx is not None:
        check_onnx_file(options.export_onnx)


def validate(config: ValidateConfig, prepared: Prepared) -> dict[str, Any]:
    """Evaluates a model and returns the record."""
    accelerator, model, loader, sha256, attacked = prepared
    options = config.report
    wants_images = options.per_class is not None or options.predictions is not None
    collector = Collector() if wants_images else None
    began = time.perf_counter()
    metrics = evaluate(model, loader, accelerator, collector=collector)
    seconds = time.perf_counter() - began

    if cast(Any, model).num_classes <= 5:
        metrics['top5'] = None  # there is nothing that it could miss
    if collector is not None:
        found = collector.gather(accelerator)
        on_main(accelerator, write_outputs, options, found, loader.subset.source, model.num_classes)

    inputs = input_config(config.input, model)
    if options.export_onnx is not None:
        on_main(accelerator, write_onnx, options.export_onnx, model, inputs['input_size'])

    metrics['robust_top1'], attack = None, None
    if config.robust.robust:
        attack = config.attack.options()
        metrics.update(evaluate_robust(model, attacked, accelerator, mean=inputs['mean'], std=inputs['std'], **attack))

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


def write_outputs(options: ReportConfig, found: Predictions, source: Source, num_classes: int) -> None:
    """Writes what --per-class and --predictions ask for.

    Raises:
        ConfigError: It cannot be written.
    """
    names = class_names(source, num_classes)
    if options.per_class is not None:
        rows = write_report(options.per_class, found, source, names)
        worst = sorted((row for row in rows if row['images']), key=lambda row: row['recall'])[:3]
        shown = ', '.join(f'{row["class"]} {row["recall"]:.1f}%' for row in worst)
        logger.info('lowest recall: %s; tables and pictures are in %s', shown, options.per_class)
    if options.predictions is not None:
        write_predictions(options.predictions, found, source, names)
        logger.info('predictions of %d images are in %s', len(found.indices), options.predictions)


def report(accelerator: Accelerator, result: dict[str, Any]) -> None:
    """Logs the scores, and prints the record as the last line of stdout; from the main process."""
    if not accelerator.is_main_process:
        return
    logger.info(
        'top-1 %.2f%s, loss %.4f: %d of %d images in %s',
        result['top1'],
        '' if result['top5'] is None else f', top-5 {result["top5"]:.2f}',
        result['loss'],
        result['correct'],
        result['count'],
        duration(result['seconds']),
    )
    if result['skipped_images']:
        logger.warning('warning: %d images could not be read and were skipped', result['skipped_images'])
    if result['attack']:
        logger.info(
            'top-1 under PGD-%d, eps %.3g/255: %.2f (%d images)',
            result['attack']['steps'],
            result['attack']['eps'] * 255,
            result['robust_top1'],
            result['robust_count'],
        )
    print(json.dumps(result), flush=True)
