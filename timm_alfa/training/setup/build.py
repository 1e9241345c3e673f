"""From options to what the loop trains with: model, criterion, optimizer, schedule."""

import warnings
from pathlib import Path
from typing import Any, Optional, cast

import torch
from timm.data.model_config import resolve_input_data_config
from timm.layers import convert_sync_batchnorm
from timm.loss import create_classification_loss
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from timm_alfa.errors import AlfaWarning, ConfigError, first_line
from timm_alfa.models.factory import build_errors, create_model
from timm_alfa.training.checkpoint.weights import find_weights, load_checkpoint, read_weights
from timm_alfa.training.options.config import InputConfig, ModelConfig, OptimConfig, ScheduleConfig, TrainConfig
from timm_alfa.training.setup.freeze import freeze_batch_norm_1d, freeze_parts
from timm_alfa.utils.console import logger


def build_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """The model on the CPU, with its starting weights.

    Raises:
        ConfigError: The model does not take these arguments.
        CheckpointError: Its starting weights cannot be read or do not fit.
    """
    options = config.model
    arguments = dict(
        num_classes=num_classes,
        drop_rate=options.drop or None,
        drop_path_rate=options.drop_path,
        global_pool=options.gp,
        in_chans=config.input.in_chans,
        **options.model_kwargs,
    )
    given = ', '.join(f'{k}={v}' for k, v in arguments.items() if v is not None)
    with build_errors(f"--model '{options.model}' cannot be built with {given}"):
        size = config.input.img_size
        model = create_model(options.model, arguments, pretrained=options.pretrained, img_size=size)
    if options.initial_checkpoint:
        source = options.initial_checkpoint
        file = find_weights(source) if Path(source).is_dir() else Path(source)
        load_checkpoint(model, read_weights(file), source, adapt=True)
    elif options.pretrained:
        _report_new_head(model)
    if options.grad_checkpointing:
        _checkpoint_gradients(model, options.model)
    return model


def _report_new_head(model: nn.Module) -> None:
    """Logs that timm has left the classifier of pretrained weights out, if it has."""
    loaded = cast(Any, model)
    before = loaded.pretrained_cfg.get('num_classes')
    if before is not None and before != loaded.num_classes:
        logger.info(
            'weights: the classifier of the pretrained weights has %d classes: a new one, of %d, is trained',
            before,
            loaded.num_classes,
        )


def _checkpoint_gradients(model: nn.Module, name: str) -> None:
    try:
        cast(Any, model).set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--grad-checkpointing: model '{name}' cannot. Leave it out.") from error


def input_config(options: InputConfig, model: nn.Module) -> dict[str, Any]:
    """How the model takes images, in timm's words: input_size, mean, std, interpolation, crop_pct.

    Raises:
        ConfigError: The options do not fit the model.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    try:
        return resolve_input_data_config(model, given)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f'the input of the model: {first_line(error)}.') from error


def evaluated_input(inputs: dict[str, Any], options: InputConfig, loader: str) -> dict[str, Any]:
    """The input as a loader evaluates images: the memory loader does not crop them.

    Args:
        loader: 'memory' or 'timm'.
    """
    if loader != 'memory':
        return inputs
    if options.crop_pct not in (None, 1):
        warnings.warn(
            f'--crop-pct {options.crop_pct:g} has no effect with the memory loader, which evaluates whole '
            'images: add --loader timm to crop them.',
            AlfaWarning,
            stacklevel=2,
        )
    return {**inputs, 'crop_pct': 1.0}


def place_model(model: nn.Module, options: ModelConfig, device: torch.device) -> nn.Module:
    """The model on its device, in its memory format, with the norms that were requested."""
    model.to(device)
    if options.channels_last:
        model.to(memory_format=torch.channels_last)
    if options.freeze_bn:
        model = freeze_batch_norm_2d(model)
        freeze_batch_norm_1d(model)
    elif options.sync_bn:
        # timm's own: torch's loses the activation inside timm's BatchNormAct2d
        model = convert_sync_batchnorm(model)
    if options.freeze is not None or options.linear_probe:
        freeze_parts(model, options)
    return model


def build_criterion(config: TrainConfig, class_weights: Optional[torch.Tensor] = None) -> nn.Module:
    """timm's loss for these options; torch's with class weights. Under mixup or cutmix targets are soft and already
    smoothed.

    Args:
        class_weights: One for each class.
    """
    options, aug = config.optim, config.aug
    if class_weights is not None:
        return nn.CrossEntropyLoss(class_weights, label_smoothing=0.0 if aug.mixes else aug.smoothing)
    return create_classification_loss(
        'bce' if options.bce_loss else 'ce',
        smoothing=aug.smoothing,
        soft_targets=aug.mixes,
        bce_sum=options.bce_sum,
        bce_target_thresh=options.bce_target_thresh,
    )


def learning_rate(options: OptimConfig, effective_batch: int) -> tuple[float, str]:
    """The learning rate and where it comes from, as a phrase.

    Args:
        effective_batch: Images of one update, over all processes and accumulation steps.
    """
    if options.lr is not None:
        return options.lr, 'as given'
    adaptive = any(part in options.opt.lower() for part in ('ada', 'lamb'))
    scale = options.lr_base_scale or ('sqrt' if adaptive else 'linear')
    ratio = effective_batch / options.lr_base_size
    rate = options.lr_base * (ratio**0.5 if scale == 'sqrt' else ratio)
    word = 'square root' if scale == 'sqrt' else 'linear'
    return rate, f'{options.lr_base:g} at batch {options.lr_base_size}, {word} scaling to {effective_batch}'


def build_optimizer(
    options: OptimConfig, model: nn.Module, extra_groups: list[dict], lr: float, fused: bool = False
) -> torch.optim.Optimizer:
    """timm's optimizer over the model, and the method's own parameters in separate groups.

    Args:
        extra_groups: `task.extra_param_groups()`.
        fused: Use its fused form, which can read learning rates on the device.

    Raises:
        ConfigError: The optimizer does not take these arguments.
    """
    arguments = dict(eps=options.opt_eps, betas=options.opt_betas, **options.opt_kwargs)
    if fused:
        arguments['fused'] = True
    try:
        optimizer = create_optimizer_v2(
            model,
            options.opt,
            lr=lr,
            weight_decay=options.weight_decay,
            momentum=options.momentum,
            filter_bias_and_bn=options.filter_bias_and_bn,
            layer_decay=options.layer_decay,
            **{name: value for name, value in arguments.items() if value is not None},
        )
        for group in extra_groups:
            optimizer.add_param_group(group)
    except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"--opt '{options.opt}' cannot be built with these options: {first_line(error)}.") from error
    return optimizer


def build_schedule(
    config: TrainConfig, optimizer: torch.optim.Optimizer, updates_per_epoch: int
) -> Optional[Scheduler]:
    """timm's schedule, counted in updates throughout: call `step_update(n)` after the n-th update.

    Raises:
        ConfigError: The schedule does not take these options.
    """
    options, epochs = config.schedule, config.epochs
    milestones = options.decay_milestones or (epochs / 4, epochs * 3 / 4)
    arguments: dict[str, Any] = dict(
        num_epochs=epochs * updates_per_epoch,
        warmup_epochs=warmup_updates(config, updates_per_epoch),
        # timm lets a milestone act one step early; one more makes the rate change right after that many epochs
        decay_milestones=[round(milestone * updates_per_epoch) + 1 for milestone in milestones],
        decay_epochs=decay_updates(options, updates_per_epoch),
    )
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            options.sched,
            decay_rate=options.decay_rate,
            min_lr=options.min_lr,
            warmup_lr=options.warmup_lr,
            step_on_epochs=False,
            updates_per_epoch=1,
            **arguments,
        )
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"--sched '{options.sched}': {first_line(error)}.") from error
    return schedule


def decay_updates(options: ScheduleConfig, updates_per_epoch: int) -> Optional[float]:
    """--decay-epochs in updates; schedules that take a fraction of the run get it as it is."""
    epochs = options.decay_epochs
    if epochs is None:
        return 90 * updates_per_epoch if options.sched == 'step' else None
    if options.sched in ('wsd', 'rsqrt') and epochs < 1:
        return epochs
    return max(1, round(epochs * updates_per_epoch))


def warmup_updates(config: TrainConfig, updates_per_epoch: int) -> int:
    """Updates of linear warm-up."""
    if config.schedule.warmup_updates is not None:
        return config.schedule.warmup_updates
    return round(config.schedule.warmup_epochs * updates_per_epoch)
