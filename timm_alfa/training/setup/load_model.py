"""The model that a checkpoint holds."""

from pathlib import Path
from typing import Any, Mapping, Optional, cast

import timm
import torch
from timm.models._hub import load_model_config_from_path
from torch import nn

from timm_alfa.errors import CheckpointError, ConfigError, first_line
from timm_alfa.models.factory import build_errors, create_model
from timm_alfa.training.checkpoint.weights import find_weights, load_checkpoint, read_weights
from timm_alfa.training.options.config import InputConfig
from timm_alfa.training.options.validate_args import CheckpointConfig
from timm_alfa.utils.files import sha256_of


def open_model(options: CheckpointConfig, inputs: InputConfig) -> tuple[nn.Module, Optional[str]]:
    """The model with the weights to evaluate, and the sha256 of their file: None if timm finds the file itself.

    Raises:
        ConfigError: The model cannot be built, or is not the one that --model names.
        CheckpointError: The weights cannot be read, or do not fit the model.
    """
    name, file = locate(options)
    weights = sha256 = None
    num_classes = options.num_classes
    if file is not None:
        weights, sha256 = read_weights(file), sha256_of(file)
        if num_classes is None and name == options.model:
            num_classes = head_classes(name, weights)
    model = build_model(name, options, inputs, num_classes, pretrained=file is None)
    check_name(options, name, model)
    if weights is not None:
        load_checkpoint(model, weights, options.checkpoint)
    return model, sha256


def build_model(
    name: str, options: CheckpointConfig, inputs: InputConfig, num_classes: Optional[int], pretrained: bool
) -> nn.Module:
    """A timm model on the CPU.

    Raises:
        ConfigError: It cannot be built.
    """
    arguments = dict(num_classes=num_classes, in_chans=inputs.in_chans, **options.model_kwargs)
    with build_errors(f"model '{name}' cannot be built"):
        return create_model(name, arguments, pretrained=pretrained, img_size=inputs.img_size)


def check_name(options: CheckpointConfig, name: str, model: nn.Module) -> None:
    """Checks that --model names the model of the checkpoint's config.json.

    Raises:
        ConfigError: The checkpoint's config.json describes another model than --model names.
    """
    built = cast(Any, model).pretrained_cfg['architecture']
    if options.model not in (None, name) and options.model.partition('.')[0] != built:
        raise ConfigError(
            f"--model is '{options.model}', but '{options.checkpoint}' holds {built}, according to its config.json. "
            'Leave --model out.'
        )


def label_names(model: nn.Module) -> Optional[list[str]]:
    """The names of a model's classes, if its config.json or its tag has one for each output."""
    names = cast(Any, model).pretrained_cfg.get('label_names')
    return list(names) if isinstance(names, (list, tuple)) and len(names) == cast(Any, model).num_classes else None


def locate(options: CheckpointConfig) -> tuple[str, Optional[Path]]:
    """timm's name for the model, and the file with its weights: None if timm finds them by that name.

    A config.json next to the weights takes precedence over --model: it also has the normalization and the model's
    arguments.

    Raises:
        CheckpointError: There are no weights, or nothing says which model they are for.
    """
    if options.checkpoint is None:
        if options.model is None:
            raise CheckpointError('there is nothing to open: pass --checkpoint, or --model NAME --pretrained.')
        return options.model, None
    if options.checkpoint.startswith(('hf-hub:', 'hf_hub:')):
        return options.checkpoint, None
    file = find_weights(options.checkpoint.removeprefix('local-dir:'))
    if is_described(file.parent):
        return f'local-dir:{file.parent}', file
    if options.model is None:
        raise CheckpointError(f"no config.json next to '{file}' says which model it is for: pass --model.")
    return options.model, file


def is_described(folder: Path) -> bool:
    """Whether a config.json in timm's form says which model the weights in a folder are for.

    Raises:
        CheckpointError: It exists, but cannot be read.
    """
    try:
        load_model_config_from_path(folder)
    except (FileNotFoundError, KeyError):  # none, or another program's
        return False
    except Exception as error:  # of a file of another kind, timm raises whatever its content leads it to
        config = folder / 'config.json'
        raise CheckpointError(f"'{config}' cannot be read: {first_line(error)}. Fix or remove it.") from error
    return True


def head_classes(name: str, weights: Mapping[str, torch.Tensor]) -> Optional[int]:
    """How many classes a model's weights are for, by the shape of their classifier; None if that is unknown."""
    cfg = timm.models.get_pretrained_cfg(name)
    head = cfg.classifier if cfg is not None else None
    if not isinstance(head, str):  # none, or several
        head = next(iter(head or ()), None)
    found = [tensor for name, tensor in weights.items() if f'.{name}'.endswith(f'.{head}.weight')]  # or nested
    return found[0].shape[0] if len(found) == 1 else None
