"""Everything a run needs, built and checked before anything is written."""

import os
import warnings
from dataclasses import dataclass
from typing import Any, Optional

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import GradientAccumulationPlugin
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from timm_alfa.data import DataInfo, create_data, inspect_data
from timm_alfa.errors import AlfaWarning, ConfigError, first_line
from timm_alfa.tasks import create_task
from timm_alfa.training import build
from timm_alfa.training.console import logger
from timm_alfa.training.fsdp import bodiless, check_launch, check_sharding, shard, whole_copy
from timm_alfa.training.options.checks import without_effect_in
from timm_alfa.training.options.config import DIGITS_DEFAULTS, TrainConfig
from timm_alfa.training.preflight import try_step
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.sharded_update import try_update
from timm_alfa.utils.distributed import broadcast
from timm_alfa.utils.launcher import launch_command
from timm_alfa.utils.rng import seed_all


@dataclass
class Run:
    """What the loop turns.

    Attributes:
        model: The plain timm model inside `task`.
        task: The method, as created.
        wrapped: The task as accelerate prepared it: call this one.
        lr: The resolved learning rate.
        skeleton: The model without memory, if `model` is sharded.
        commit: Of the code, as it was when it was loaded.
    """

    config: TrainConfig
    accelerator: Accelerator
    data: Any
    input_config: dict[str, Any]
    model: nn.Module
    task: nn.Module
    wrapped: nn.Module
    optimizer: Any
    schedule: Optional[Scheduler]
    ema: Optional[ModelEmaV3]
    lr: float
    updates_per_epoch: int
    skeleton: Optional[nn.Module] = None
    commit: Optional[str] = None

    @property
    def effective_batch(self) -> int:
        """Images of one update, over all processes and accumulation steps."""
        return self.config.data.batch_size * self.config.optim.grad_accum_steps * self.accelerator.num_processes

    @property
    def eval_model(self) -> nn.Module:
        """What validation runs: the averaged model if there is one."""
        return self.ema.module if self.ema is not None else self.task.get_eval_model()

    @property
    def saved_model(self) -> nn.Module:
        """What is saved as the run's weights: the averaged model if there is one, never a compiled wrapper."""
        return self.ema.module if self.ema is not None else self.model

    def whole(self, model: nn.Module) -> nn.Module:
        """What a process can run by itself: the given model, or, if that is sharded, a copy of its own to be dropped.

        Args:
            model: `model`, or the average's. Every process calls it.
        """
        return model if self.skeleton is None else whole_copy(self.skeleton, model, self.accelerator.device)

    @property
    def blocks(self) -> Optional[list[str]]:
        """Names of the perturbed features, where the method perturbs some."""
        return list(self.task.blocks) or None


def create_accelerator(config: TrainConfig) -> Accelerator:
    """accelerate, with the trackers asked for.

    Raises:
        ConfigError: A tracker is not installed, a device is not there, or weights cannot be sharded as asked.
    """
    check_trackers(config.run.log_with)
    steps = os.environ.get('ACCELERATE_GRADIENT_ACCUMULATION_STEPS', '1')
    if steps != '1':
        warnings.warn(
            f'ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps} has no effect here: give train.py '
            f'--grad-accum-steps {steps}.',
            AlfaWarning,
            stacklevel=2,
        )
    accelerator = start_accelerate(log_with=list(config.run.log_with or ()) or None, project_dir=config.run.output)
    check_sharding(accelerator, config.model.torchcompile is not None)
    return accelerator


def start_accelerate(**arguments) -> Accelerator:
    """accelerate, over all processes that were launched.

    Raises:
        ConfigError: It cannot start, would compile the whole task, or sees fewer processes than there are.
    """
    # running statistics are reduced before they are read; broadcasting them at every forward would cost time
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    # the loop weighs accumulated batches itself: accelerate would divide each loss once more
    accumulation = GradientAccumulationPlugin(num_steps=1)
    # without this, processes launched on a machine without a GPU would each take themselves for the only one
    cpu = not torch.accelerator.is_available()
    try:
        accelerator = Accelerator(
            cpu=cpu, kwargs_handlers=[ddp], gradient_accumulation_plugin=accumulation, **arguments
        )
    except (ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f'accelerate cannot start: {first_line(error)}.') from error
    check_launch(accelerator)
    backend = accelerator.state.dynamo_plugin.backend.value
    if backend != 'NO':
        raise ConfigError(
            f'accelerate launch --dynamo_backend {backend.lower()} compiles a task as one piece, which a '
            f'search could not enter: leave it out and give train.py --torchcompile {backend.lower()}.'
        )
    launched = int(os.environ.get('WORLD_SIZE', '1'))
    if accelerator.num_processes != launched:
        raise ConfigError(
            f'{launched} processes were launched, accelerate sees {accelerator.num_processes}: start '
            'them with accelerate launch or torchrun, and see that the devices are there.'
        )
    return accelerator


def check_trackers(names: Optional[tuple[str, ...]]) -> None:
    """Raises:
    ConfigError: A tracker is not installed.
    """
    from importlib.util import find_spec

    missing = [
        name
        for name in names or ()
        if find_spec(name) is None and not (name == 'tensorboard' and find_spec('tensorboardX'))
    ]
    if missing:
        raise ConfigError([f"--log-with {name} is not installed: pip install 'timm_alfa[{name}]'." for name in missing])


def task_arguments(options: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """A task's options; where `mean` and `std` are among them and unset, they are those of the loader."""
    arguments = dict(vars(options))
    if arguments.get('mean', inputs) is None:
        arguments.update(mean=inputs['mean'], std=inputs['std'])
    return arguments


def open_data(config: TrainConfig, accelerator: Accelerator) -> DataInfo:
    """What is known of the data. If they may be downloaded, one process of each machine does it before the others."""
    download, first = config.data.dataset_download, accelerator.is_local_main_process
    if download and not first:
        accelerator.wait_for_everyone()
    try:
        return inspect_data(config.data, config.aug, seed=config.run.seed)
    finally:
        if download and first:  # after an error, too: the others meet it themselves
            accelerator.wait_for_everyone()


def prepare(config: TrainConfig) -> Run:
    """Builds a run. Reads data and weights; writes nothing.

    Raises:
        AlfaError: Whatever of the options does not work out.
    """
    commit = provenance.commit()  # before the rest: while a run goes on, the files of its code may change
    accelerator = create_accelerator(config)
    seed_all(config.run.seed)
    info = open_data(config, accelerator)
    model = build.build_model(config, info.num_classes)
    inputs = build.input_config(config.input, model)
    inputs = build.evaluated_input(inputs, config.input, info.loader)
    model = build.place_model(model, config.model, accelerator.device)
    task = create_task(
        config.task.task,
        model,
        criterion=build.build_criterion(config),
        device=accelerator.device,
        **task_arguments(config.task_options, inputs),
    )
    task.to(accelerator.device)
    try_step(task, accelerator, inputs['input_size'], info.num_classes, config.aug.mixes)
    data = create_data(
        config.data,
        config.aug,
        model_config=inputs,
        seed=config.run.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        channels_last=config.model.channels_last,
        info=info,
    )
    if not len(data.train):
        raise ConfigError('the training set has no batch: lower --batch-size.')
    ema = skeleton = None
    if accelerator.is_fsdp2:
        broadcast(accelerator, task)  # as DDP does: each process keeps its piece of what it has
        skeleton = bodiless(model)
    if config.ema.model_ema:
        ema = ModelEmaV3(model, decay=config.ema.model_ema_decay, use_warmup=config.ema.model_ema_warmup)
    effective = config.data.batch_size * config.optim.grad_accum_steps * accelerator.num_processes
    lr, why = build.learning_rate(config.optim, effective)
    optimizer = build.build_optimizer(config.optim, model, task.extra_param_groups(), lr)
    updates = -(-len(data.train) // config.optim.grad_accum_steps)
    schedule = build.build_schedule(config, optimizer, updates)
    if config.model.torchcompile:
        task.compile(backend=config.model.torchcompile, mode=config.model.torchcompile_mode)
    if accelerator.is_fsdp2:
        try_update(accelerator, config.optim)
        wrapped, optimizer = shard(accelerator, task, optimizer, ema)
        try_step(task, accelerator, inputs['input_size'], info.num_classes, config.aug.mixes)
    else:
        wrapped, optimizer = accelerator.prepare(task, optimizer)
    run = Run(
        config, accelerator, data, inputs, model, task, wrapped, optimizer, schedule, ema, lr, updates, skeleton, commit
    )
    describe(run, why)
    return run


def describe(run: Run, lr_reason: str) -> None:
    """Says what will be used."""
    config, accelerator, data = run.config, run.accelerator, run.data
    if not (config.data.dataset or config.data.data_dir):
        logger.info('data: no --dataset or --data-dir given, so the embedded digits')
    if config.model.sync_bn and accelerator.num_processes == 1:
        warnings.warn('--sync-bn has no effect with one process.', AlfaWarning, stacklevel=2)
    own = [f'{key} {value}' for key, value in DIGITS_DEFAULTS.items() if config.is_digits and key not in config.given]
    if own:
        logger.info('defaults for the embedded digits: %s', ', '.join(own))
    logger.info('data: %s', data.description)
    for note in data.notes:
        logger.info('data: %s', note)
    parameters = sum(p.numel() for p in run.model.parameters())
    logger.info(
        'model: %s, %s parameters, %s classes, input %s',
        config.model.model,
        f'{parameters:,}',
        data.num_classes,
        'x'.join(map(str, run.input_config['input_size'])),
    )
    blocks = f', blocks {", ".join(run.blocks)}' if run.blocks else ''
    logger.info('task: %s%s', config.task.task, blocks)
    logger.info(
        'batch: %d images an update = %d a process x %d process(es) x %d accumulated',
        run.effective_batch,
        config.data.batch_size,
        accelerator.num_processes,
        config.optim.grad_accum_steps,
    )
    if (batch := config.data.batch_size * accelerator.num_processes) > data.train_images:
        warnings.warn(
            f'-b: a batch of {batch} takes all {data.train_images} training images: lower it, and mind the '
            'learning rate.',
            AlfaWarning,
            stacklevel=2,
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
        warnings.warn(line, AlfaWarning, stacklevel=2)
    logger.info('device: %s, precision %s', accelerator.device, accelerator.mixed_precision)
    recipe = config.recipe_precision
    if recipe not in (None, accelerator.mixed_precision):
        warnings.warn(
            f'--config says mixed_precision {recipe}, here it is {accelerator.mixed_precision}. To have it: '
            f'{launch_command("train.py", "...", mixed_precision=recipe, explicit=True)}',
            AlfaWarning,
            stacklevel=2,
        )
