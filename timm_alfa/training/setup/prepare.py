"""Everything a run needs, built and checked before anything is written."""

from dataclasses import replace
from typing import Any, Optional

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from timm_alfa.data import DataInfo, create_data, inspect_data
from timm_alfa.data.config import AUTO
from timm_alfa.data.loaders.sampling import train_slice
from timm_alfa.errors import ConfigError
from timm_alfa.tasks import create_task
from timm_alfa.tasks.base import MethodTask
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.preflight.batch_size import find_batch_size
from timm_alfa.training.preflight.graph import check_graph
from timm_alfa.training.preflight.optimizer_step import try_optimizer
from timm_alfa.training.preflight.sharded_update import try_update
from timm_alfa.training.preflight.trial_step import try_step
from timm_alfa.training.run import Run
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.setup import build
from timm_alfa.training.setup.class_weights import class_weights
from timm_alfa.training.setup.describe import describe
from timm_alfa.training.setup.fsdp import meta_copy, shard
from timm_alfa.training.setup.launch import create_accelerator
from timm_alfa.training.update.graphs import own_stream, search_kernels
from timm_alfa.utils.distributed import broadcast
from timm_alfa.utils.rng import preserve_rng, seed_all


def prepare(config: TrainConfig, caches: Optional[dict] = None) -> Run:
    """Builds a run. Reads data and weights; writes nothing.

    Args:
        caches: Decoded images that several runs share: see `create_data`.

    Raises:
        AlfaError: Some options cannot be satisfied.
    """
    # where it runs
    commit = provenance.commit()  # first: the files of the code may change while the run lasts
    accelerator = create_accelerator(config)
    seed_all(config.run.seed)

    # the model and the method, tried on one batch
    info = open_data(config, accelerator)
    model = build.build_model(config, info.num_classes)
    inputs = build.input_config(config.input, model)
    inputs = build.evaluated_input(inputs, config.input, info.loader)
    model = build.place_model(model, config.model, accelerator.device)
    criterion = build.build_criterion(config, class_weights(config.optim.class_weights, info))
    task = build_task(config, model, criterion, inputs, accelerator.device)
    trial = dict(input_size=inputs['input_size'], num_classes=info.num_classes, soft=config.aug.mixes)
    try_step(task, accelerator, **trial)
    if config.data.batch_size == AUTO:
        size = find_batch_size(task, accelerator, **trial)
        config = replace(config, data=replace(config.data, batch_size=size))
    with preserve_rng(accelerator.device):
        try_step(task, accelerator, **trial, images=batch_images(config, accelerator, info))
    if config.model.cuda_graph:
        check_graph(task, accelerator, inputs['input_size'])
        search_kernels(accelerator.device)
    data = build_data(config, accelerator, inputs, info, caches)

    # what is kept of the unsharded model, before it may be sharded
    ema = meta_model = None
    if accelerator.is_fsdp2:
        broadcast(accelerator, task)  # as DDP does: each process keeps its part of its own weights
        meta_model = meta_copy(model)
    if config.ema.model_ema:
        ema = ModelEmaV3(model, decay=config.ema.model_ema_decay, use_warmup=config.ema.model_ema_warmup)

    # optimizer and schedule
    try_optimizer(config.optim, accelerator.device, config.model.cuda_graph)
    updates_per_epoch = -(-len(data.train) // config.optim.grad_accum_steps)
    task.total_updates = config.epochs * updates_per_epoch
    effective_batch = config.data.batch_size * config.optim.grad_accum_steps * accelerator.num_processes
    lr, lr_reason = build.learning_rate(config.optim, effective_batch)
    optimizer = build.build_optimizer(config.optim, model, task.extra_param_groups(), lr, config.model.cuda_graph)
    schedule = build.build_schedule(config, optimizer, updates_per_epoch)

    # compiled and distributed
    if config.model.torchcompile:
        task.compile(backend=config.model.torchcompile, mode=config.model.torchcompile_mode)
    if accelerator.is_fsdp2:
        try_update(accelerator, config.optim)
        wrapped, optimizer = shard(accelerator, task, optimizer, ema)
        try_step(task, accelerator, **trial)
    else:
        wrapped, optimizer = accelerator.prepare(task, optimizer)

    run = Run(
        config=config,
        accelerator=accelerator,
        data=data,
        input_config=inputs,
        model=model,
        task=task,
        wrapped=wrapped,
        optimizer=optimizer,
        schedule=schedule,
        ema=ema,
        lr=lr,
        updates_per_epoch=updates_per_epoch,
        meta_model=meta_model,
        commit=commit,
        stream=own_stream(accelerator.device) if config.model.cuda_graph else None,
    )
    describe(run, lr_reason)
    return run


def open_data(config: TrainConfig, accelerator: Accelerator) -> DataInfo:
    """What is known of the data. If they may be downloaded, one process per machine does it before the others."""
    download, first = config.data.dataset_download, accelerator.is_local_main_process
    if download and not first:
        accelerator.wait_for_everyone()
    try:
        return inspect_data(config.data, config.aug, seed=config.run.seed)
    finally:
        if download and first:  # after an error, too: the others run into it themselves
            accelerator.wait_for_everyone()


def batch_images(config: TrainConfig, accelerator: Accelerator, info: DataInfo) -> int:
    """Images of this process's batches: all have as many, also if there is only one, smaller than requested."""
    processes = accelerator.num_processes
    return len(train_slice(len(info.train), 0, config.data.batch_size, accelerator.process_index, processes))


def build_task(
    config: TrainConfig, model: nn.Module, criterion: nn.Module, inputs: dict[str, Any], device: torch.device
) -> MethodTask:
    """The method, around a model that is on its device."""
    task = create_task(
        config.task.task,
        model,
        criterion=criterion,
        device=device,
        **task_arguments(config.task_options, inputs),
    )
    return task.to(device)


def task_arguments(options: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """A task's options; if `mean` and `std` are among them and unset, they are those of the loader."""
    arguments = dict(vars(options))
    if arguments.get('mean', inputs) is None:
        arguments.update(mean=inputs['mean'], std=inputs['std'])
    return arguments


def build_data(
    config: TrainConfig,
    accelerator: Accelerator,
    inputs: dict[str, Any],
    info: DataInfo,
    caches: Optional[dict] = None,
):
    """This process's loaders.

    Raises:
        ConfigError: There is not a single batch.
    """
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
        caches=caches,
        decode=not config.run.dry_run,
    )
    if not len(data.train):
        raise ConfigError('the training set has no complete batch: lower --batch-size.')
    return data
