"""What a run logs before it starts: data, model, method, batch, schedule, device, and options without effect."""

import warnings

import timm
import torch

from timm_alfa.data.inspect import SMALL_SIDE
from timm_alfa.errors import AlfaWarning
from timm_alfa.training.options.checks import starts_from_weights, without_effect_in
from timm_alfa.training.options.config import DIGITS_DEFAULTS
from timm_alfa.training.run import Run
from timm_alfa.utils.console import logger
from timm_alfa.utils.fsdp import is_sharded
from timm_alfa.utils.program import launch_command, spelling
from timm_alfa.utils.rng import preserve_rng


def describe(run: Run, lr_reason: str) -> None:
    """Logs what will be used.

    Args:
        lr_reason: Where the learning rate comes from.
    """
    _describe_data(run)
    _describe_model(run)
    _describe_updates(run, lr_reason)
    _describe_device(run)


def _describe_data(run: Run) -> None:
    config, data = run.config, run.data
    if not (config.data.dataset or config.data.data_dir):
        logger.info('data: no --dataset or --data-dir given, so the embedded digits')
    if config.is_digits:
        defaults = [f'{key} {value}' for key, value in DIGITS_DEFAULTS.items() if key not in config.given]
        if defaults:
            logger.info('defaults for the embedded digits: %s', ', '.join(defaults))
    logger.info('data: %s', data.description)
    for note in data.notes:
        logger.info('data: %s', note)


def _describe_model(run: Run) -> None:
    config = run.config
    parameters = sum(p.numel() for p in run.model.parameters())
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    size = 'x'.join(map(str, run.input_config['input_size']))
    logger.info(
        'model: %s, %s parameters%s, %s classes, input %s',
        config.model.model,
        f'{parameters:,}',
        '' if trained == parameters else f' of which {trained:,} are trained',
        run.data.num_classes,
        size,
    )
    if hint := small_images_hint(run):
        _warn(hint)
    if config.model.sync_bn and run.accelerator.num_processes == 1:
        _warn('--sync-bn has no effect with one process.')
    blocks = f', blocks {", ".join(run.blocks)}' if run.blocks else ''
    logger.info('task: %s%s%s', config.task.task, blocks, _objective(run))


def small_images_hint(run: Run) -> str:
    """Which variant of the model is for small images, if they are small and the model is trained from scratch."""
    options = run.config.model
    variant = f'{options.model}_cifar'
    stored, input = (max(size[1:]) for size in (run.data.image_size, run.input_config['input_size']))
    if stored > SMALL_SIDE or starts_from_weights(run.config) or not timm.is_model(variant):
        return ''
    if input > SMALL_SIDE:
        problem = f'images of {stored} pixels are enlarged to {input}, {(input / stored) ** 2:.0f} times the work'
    else:
        problem = (
            f'its stem is for large images: the last stage sees {-(-input // 32)}x{-(-input // 32)} of {input} pixels'
        )
    return f'--model {options.model}: {problem}. {variant} is for small images: use --model {variant}.'


def _objective(run: Run) -> str:
    """What is minimized and what it costs, for the line about the task."""
    loss = run.task.describe_loss()
    if not loss:
        return ''
    device = run.accelerator.device
    input = torch.zeros(2, *run.input_config['input_size'], device=device)
    with preserve_rng(device), run.accelerator.autocast():
        cost = None if is_sharded(run.model.parameters()) else run.task.expected_cost(input)
    return f'; {loss}' if cost is None else f'; {loss}, about {cost:.2g}x a standard step'


def _describe_updates(run: Run, lr_reason: str) -> None:
    config = run.config
    logger.info(
        'batch: %d images per update = %d per process x %d process(es) x %d accumulated',
        run.effective_batch,
        config.data.batch_size,
        run.accelerator.num_processes,
        config.optim.grad_accum_steps,
    )
    if run.images_per_batch > run.data.train_images:
        _warn(
            f'-b: a batch of {run.images_per_batch} takes all {run.data.train_images} training images: lower it, and '
            'check the learning rate.'
        )
    logger.info(
        'schedule: %d epochs of %d updates, %s, learning rate %.6g (%s)',
        config.epochs,
        run.updates_per_epoch,
        config.schedule.sched,
        run.lr,
        lr_reason,
    )
    for line in without_effect_in(config, config.epochs * run.updates_per_epoch):
        _warn(line)


def _describe_device(run: Run) -> None:
    accelerator, recipe = run.accelerator, run.config.recipe_precision
    logger.info('device: %s, precision %s', accelerator.device, accelerator.mixed_precision)
    if recipe not in (None, accelerator.mixed_precision):
        command = launch_command(*spelling('train').launch, '...', mixed_precision=recipe, explicit=True)
        _warn(
            f'--config says mixed_precision {recipe}, but this run uses {accelerator.mixed_precision}. To change it: '
            f'{command}'
        )


def _warn(message: str) -> None:
    warnings.warn(message, AlfaWarning, stacklevel=4)
