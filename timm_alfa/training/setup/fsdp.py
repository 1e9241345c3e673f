"""FSDP2: which of accelerate's options work here, sharding the modules of a run, and unsharded copies of them."""

import copy
import os
from itertools import chain
from typing import Any, Iterator, Optional

import torch
from accelerate import Accelerator, DistributedType
from timm.utils import ModelEmaV3
from torch import nn

from timm_alfa.errors import ConfigError, first_line
from timm_alfa.tasks.base import MethodTask
from timm_alfa.utils.fsdp import full_tensor
from timm_alfa.utils.program import program

PLAIN = (
    DistributedType.NO,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_XPU,
    DistributedType.MULTI_NPU,
    DistributedType.MULTI_MLU,
)


def check_launch(accelerator: Accelerator) -> None:
    """Checks that accelerate is configured for one process, DDP or FSDP.

    Raises:
        ConfigError: accelerate is configured for something other than one process, DDP or FSDP, or ignores FSDP.
    """
    kind = accelerator.distributed_type
    if kind in PLAIN and os.environ.get('ACCELERATE_USE_FSDP', 'false').lower() == 'true':
        raise ConfigError(
            'FSDP needs GPUs and accelerate launch: accelerate ignores fsdp_config here. Remove it from '
            'the config, or launch on GPUs.'
        )
    if kind not in (*PLAIN, DistributedType.FSDP):
        raise ConfigError(
            f'{kind.value} is not supported. To shard weights, use FSDP2: accelerate launch --use_fsdp '
            '--fsdp_version 2, or in its config distributed_type: FSDP and fsdp_version: 2. Otherwise '
            'launch with DDP (--multi_gpu).'
        )


def check_sharding(accelerator: Accelerator, compiles: bool) -> None:
    """Checks that every part of FSDP's config works here.

    Raises:
        ConfigError: Parts of FSDP's config do not work here; it lists all of them.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        errors = list(_plugin_errors(accelerator))
        if compiles:
            # dynamo drops guards inside of FSDP's modules, which a search changes between its passes
            errors.append('--torchcompile does not work with FSDP2: leave it out, or launch with DDP (--multi_gpu).')
        if errors:
            raise ConfigError(errors)


def _plugin_errors(accelerator: Accelerator) -> Iterator[str]:
    """A line for each part of an FSDP config that does not work here."""
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        yield (
            f'FSDP {plugin.fsdp_version} is not supported: set fsdp_version: 2 in the config, or pass '
            '--fsdp_version 2 to accelerate launch.'
        )
        return
    if plugin.activation_checkpointing:
        yield (
            'fsdp_activation_checkpointing wraps modules that a search enters: set it to false, and pass '
            f'--grad-checkpointing to {program("train")}.'
        )
    if type(plugin.cpu_offload).__name__ == 'CPUOffloadPolicy':
        yield 'fsdp_offload_params: weights on the CPU are not supported: set it to false.'
    if plugin.ignored_modules is not None:
        yield (
            f"fsdp_ignored_modules is '{plugin.ignored_modules}': what FSDP2 ignores would differ between "
            'processes. Leave it out.'
        )
    if accelerator.parallelism_config is not None:
        yield ('parallelism_config is not supported: leave it out, and FSDP2 shards over all processes.')


def shard(accelerator: Accelerator, task: MethodTask, optimizer, ema: Optional[ModelEmaV3]) -> tuple:
    """The task and its optimizer as accelerate shards them; the EMA is sharded in the same way, in place.

    Raises:
        ConfigError: They cannot be sharded.
    """
    from accelerate.utils import fsdp2_prepare_model

    plugin = accelerator.state.fsdp_plugin
    # meant for loading by transformers: here all processes have the weights, and buffers would be lost
    plugin.cpu_ram_efficient_loading = False
    # weights cast as a whole would round a search's steps away: autocast, as under DDP, does not
    plugin.mixed_precision_policy = None
    try:
        task, optimizer = accelerator.prepare(task, optimizer)
        trained: Any = task.trainable_module
        if hasattr(trained, 'set_reshard_after_forward'):
            # a method's own parameters are still needed after the model's pass
            trained.set_reshard_after_forward(False, recurse=False)
        if ema is not None:
            fsdp2_prepare_model(accelerator, ema.module)
            ema.foreach = False  # its state mixes sharded parameters and complete buffers
    except (torch.OutOfMemoryError, torch.distributed.DistError):
        raise
    except (ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f'FSDP2 cannot shard this model: {first_line(error)}. Choose another fsdp_auto_wrap_policy '
            '(NO_WRAP shards the model as one unit), or launch with DDP (--multi_gpu).'
        ) from error
    return task, optimizer


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy of a model on the meta device, made without copying its tensors first."""
    memo: dict[int, torch.Tensor] = {id(p): nn.Parameter(p.to('meta'), p.requires_grad) for p in model.parameters()}
    memo.update({id(b): b.to('meta') for b in model.buffers()})
    return copy.deepcopy(model, memo)


@torch.no_grad()
def unsharded_copy(meta_model: nn.Module, model: nn.Module, device: torch.device) -> nn.Module:
    """A plain copy of a sharded model, on this process's device. Every process calls it.

    Args:
        meta_model: The model's `meta_copy`, from before it was sharded.
    """
    plain = copy.deepcopy(meta_model).to_empty(device=device)
    for empty, tensor in zip(_tensors(plain), _tensors(model), strict=True):
        empty.copy_(full_tensor(tensor))
    return plain


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    named = chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return (tensor for _, tensor in named)
