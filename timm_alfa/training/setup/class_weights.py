"""Weights of the classes in the loss: from their frequencies, or from a file."""

import math
from typing import Any, Optional, Sequence

import torch

from timm_alfa.data import DataInfo
from timm_alfa.errors import ConfigError, did_you_mean
from timm_alfa.training.options.config import BALANCED
from timm_alfa.utils.console import logger
from timm_alfa.utils.plain_data import PlainDataError, read_yaml


def class_weights(option: Optional[str], info: DataInfo) -> Optional[torch.Tensor]:
    """The weight of each class, (classes,) float32; None without --class-weights.

    Raises:
        ConfigError: The file cannot be read, or does not hold a weight for each class.
    """
    if option is None:
        return None
    if option == BALANCED:
        weights = balanced_weights(info.train.source.targets[info.train.indices], info.num_classes)
    else:
        weights = read_weights_of_classes(option, info.num_classes, info.class_names)
    low, high = int(weights.argmin()), int(weights.argmax())
    logger.info(
        'loss: class weights from %.3g (%s) to %.3g (%s)',
        weights[low],
        class_name(low, info.class_names),
        weights[high],
        class_name(high, info.class_names),
    )
    return weights


def balanced_weights(targets: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Weights in inverse proportion to how many images a class has; their mean over the images is 1.

    A class without images has the weight 1, which only smoothed and mixed targets use.

    Args:
        targets: Of all training images, (images,).
    """
    counts = torch.bincount(targets, minlength=num_classes)
    present = counts > 0
    weights = torch.ones(num_classes, dtype=torch.float64)
    weights[present] = len(targets) / (present.sum() * counts[present]).double()
    return weights.float()


def read_weights_of_classes(file: str, num_classes: int, names: Sequence[str]) -> torch.Tensor:
    """Weights from a YAML or JSON file: a list in the order of the labels, or a mapping from the classes' names.

    Raises:
        ConfigError: It cannot be read, or does not hold a weight for each class.
    """
    try:
        content = read_yaml(file)
    except OSError as error:
        raise ConfigError(
            f"--class-weights is '{file}', which cannot be read: {error.strerror}. Pass auto, or a YAML file."
        ) from error
    except PlainDataError as error:
        raise ConfigError(f"--class-weights is '{file}', which cannot be used: {error}.") from error
    if isinstance(content, dict):
        content = _in_order(file, {str(name): value for name, value in content.items()}, num_classes, names)
    if not isinstance(content, list) or len(content) != num_classes:
        found = f'{len(content)} weights' if isinstance(content, list) else 'neither a list nor a mapping'
        raise ConfigError(f"--class-weights '{file}' holds {found}: it needs one for each of {num_classes} classes.")
    for index, value in enumerate(content):
        if not _is_weight(value):
            name = class_name(index, names)
            raise ConfigError(f"--class-weights '{file}' has {value!r} for class {name}: it must be a number above 0.")
    return torch.tensor(content, dtype=torch.float32)


def _in_order(file: str, weights: dict[str, Any], num_classes: int, names: Sequence[str]) -> list[Any]:
    """The values of a mapping, in the order of the labels; classes without names are numbered."""
    known = [class_name(index, names) for index in range(num_classes)]
    for name in weights:
        if name not in known:
            raise ConfigError(f"--class-weights '{file}' has the unknown class '{name}'.{did_you_mean(name, known)}")
    if missing := [name for name in known if name not in weights]:
        raise ConfigError(f"--class-weights '{file}' lacks {len(missing)} classes, such as '{missing[0]}'.")
    return [weights[name] for name in known]


def class_name(index: int, names: Sequence[str]) -> str:
    """What a class is called: its number if the data names none."""
    return names[index] if index < len(names) else str(index)


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
