"""The model that a checkpoint holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

import timm
import torch
from timm.models._hub import load_model_config_from_path
from torch import nn

from timm_alfa.errors import AlfaError, CheckpointError, ConfigError, first_line
from timm_alfa.models.arguments import argument_errors
from timm_alfa.models.factory import create_model
from timm_alfa.options import option
from timm_alfa.training.checkpoint.weights import find_weights, load_weights, read_weights
from timm_alfa.training.options.checks import model_errors
from timm_alfa.training.options.config import InputConfig
from timm_alfa.utils.files import sha256_of


@dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoint, and what its model is."""

    checkpoint: Optional[str] = option(
        None, "weights file, folder of a run, 'local-dir:FOLDER' or 'hf-hub:OWNER/NAME'", metavar='PATH'
    )
    model: Optional[str] = option(None, 'timm model, if there is no config.json next to the checkpoint')
    pretrained: bool = option(False, "evaluate the model's pretrained weights; needs no --checkpoint")
    num_classes: Optional[int] = option(None, "number of classes (default: the checkpoint's)", low=1)
    model_kwargs: dict = option({}, 'additional arguments of the model, as name=value ...')
    channels_last: bool = option(False, 'use the channels_last memory layout')

    def errors(self, flag_name):
        if self.checkpoint is None and not (self.model and self.pretrained):
            yield (
                f'nothing to score: pass {flag_name("checkpoint")}, or '
                f'{flag_name("model")} NAME {flag_name("pretrained")}.'
            )
        if self.checkpoint is not None and self.pretrained:
            yield f'{flag_name("checkpoint")} and {flag_name("pretrained")} cannot be combined.'
        if self.model is not None:
            yield from model_errors(self.model)
        yield from argument_errors(self.model_kwargs, flag_name('model_kwargs'))


def open_model(options: CheckpointConfig, inputs: InputConfig) -> tuple[nn.Module, Optional[str]]:
    """The model with the weights to score, and the sha256 of their file: None where timm finds it.

    Raises:
        ConfigError: The model cannot be built, or is not the one that --model names.
        CheckpointError: The weights cannot be read, or do not fit it.
    """
    name, weights = locate(options)
    state, sha256 = (None, None) if weights is None else (read_weights(weights), sha256_of(weights))
    arguments = dict(num_classes=options.num_classes, in_chans=inputs.in_chans, **options.model_kwargs)
    if state is not None and name == options.model and not options.num_classes:
        arguments['num_classes'] = head_classes(name, state)
    try:
        model = create_model(name, arguments, pretrained=weights is None, img_size=inputs.img_size)
    except AlfaError:
        raise
    except Exception as error:  # whatever a constructor, the Hub or a file raises, it is about these options
        raise ConfigError(f"model '{name}' cannot be built: {first_line(error)}.") from error
    built = model.pretrained_cfg['architecture']
    if options.model not in (None, name) and options.model.partition('.')[0] != built:
        raise ConfigError(
            f"--model is '{options.model}', but '{options.checkpoint}' holds {built}, by its config.json."
            ' Leave --model out.'
        )
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
            f"'{folder / 'config.json'}' cannot be read: {first_line(error)}. Mend or remove it."
        ) from error
    return True


def head_classes(name: str, state: Mapping[str, torch.Tensor]) -> Optional[int]:
    """How many classes a model's weights are for, by the shape of their classifier; None if that cannot be told."""
    cfg = timm.models.get_pretrained_cfg(name)
    head = cfg.classifier if cfg is not None else None
    weight = state.get(f'{head if isinstance(head, str) else next(iter(head or ()), None)}.weight')
    return weight.shape[0] if weight is not None else None
