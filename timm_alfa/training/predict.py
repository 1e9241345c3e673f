"""predict: the most probable classes of images."""

import sys
from typing import Any, Iterator, NamedTuple, Optional, Sequence, cast

import numpy as np
import torch
from accelerate import Accelerator
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from timm_alfa.data import create_image_loader
from timm_alfa.data.datasets.base import caught, image_mode
from timm_alfa.data.datasets.image_paths import Unlabeled, find_images
from timm_alfa.training.options.predict_args import PredictArgs
from timm_alfa.training.report.output_file import TABLES, check_output_file, write_table
from timm_alfa.training.report.predictions import gather_in_order, top_classes
from timm_alfa.training.setup.build import input_config
from timm_alfa.training.setup.launch import start_accelerate
from timm_alfa.training.setup.load_model import label_names, open_model
from timm_alfa.utils.console import logger
from timm_alfa.utils.distributed import gather, on_main
from timm_alfa.utils.progress import progress
from timm_alfa.utils.text import printable


class Prepared(NamedTuple):
    """What is classified, and by what.

    Attributes:
        loader: This process's share of the images.
        names: Of the classes.
    """

    accelerator: Accelerator
    model: nn.Module
    loader: Any
    names: list[str]


class Answers(NamedTuple):
    """One row per image, in the order of the source.

    Attributes:
        indices: Of the images in their source, (n,).
        classes: The most probable ones, that first, (n, k).
        probabilities: Theirs, (n, k).
    """

    indices: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray


def prepare(config: PredictArgs) -> Prepared:
    """Starts accelerate, finds the images and opens the model.

    Raises:
        AlfaError: Some options cannot be satisfied.
    """
    accelerator = start_accelerate()
    paths = on_main(accelerator, find_paths, config)

    # the model
    model, sha256 = open_model(config.checkpoint, config.input)
    model.to(accelerator.device)
    if config.checkpoint.channels_last:
        model.to(memory_format=torch.channels_last)
    names = class_names(model, published=sha256 is None)

    # the images
    loader = create_image_loader(
        config.data,
        Unlabeled(paths),
        model_config=input_config(config.input, model),
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        channels_last=config.checkpoint.channels_last,
    )
    return Prepared(accelerator, model, loader, names)


def find_paths(config: PredictArgs) -> list[str]:
    """The paths of the images, once the file to write is known to be possible.

    Raises:
        AlfaError: There are none, or the file cannot be written.
    """
    options = config.predict
    if options.output is not None:
        check_output_file('--output', options.output, TABLES)
    return list(find_images(named(options.images)))


def named(words: Sequence[str]) -> Iterator[str]:
    """Files and folders from the command line and, for '-', from standard input."""
    for word in words:
        if word == '-':
            yield from filter(None, map(str.strip, sys.stdin))
        else:
            yield word


def class_names(model: nn.Module, published: bool) -> list[str]:
    """What to call a model's classes: as in its config.json, those of ImageNet, or else numbers.

    Args:
        published: Whether the weights were found by timm's name for them, so that 1000 classes are ImageNet's.
    """
    if names := label_names(model):
        return names
    subset = infer_imagenet_subset(model) if published else None
    if subset is not None:
        return list(ImageNetInfo(subset).label_descriptions())
    return [str(index) for index in range(cast(Any, model).num_classes)]


def predict(config: PredictArgs, prepared: Prepared) -> int:
    """Classifies the images, prints and writes what was found.

    Returns:
        How many images could not be read.
    """
    accelerator, model, loader, names = prepared
    answers = classify(model, loader, accelerator, min(config.predict.top_k, len(names)))
    broken = gather(accelerator, [str(error) for error in read_errors(loader)])
    on_main(accelerator, show, answers, broken, loader.subset.source.paths, names, config.predict.output)
    return len(broken)


@torch.no_grad()
def classify(model: nn.Module, loader: Any, accelerator: Accelerator, most: int) -> Answers:
    """The answers of all processes. Every process calls it.

    Args:
        most: Classes per image.
    """
    model.eval()
    batches: list[tuple[torch.Tensor, ...]] = []
    for input, _ in progress(loader, 'predict', active=accelerator.is_main_process):
        with accelerator.autocast():
            classes, probabilities = top_classes(model(input), most)
        batches.append((loader.last_indices.clone(), classes.cpu(), probabilities.cpu()))

    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, most, dtype=torch.int64), torch.empty(0, most)
    return Answers(*gather_in_order(accelerator, batches, nothing))


def read_errors(loader: Any) -> Iterator[Any]:
    """What is wrong with each image of this process that could not be read: it is read once more."""
    mode = image_mode(loader.spec.input_size[0])
    for index in sorted(loader.skipped_indices):
        yield caught(loader.subset.source.image, index, mode)


def show(
    answers: Answers, broken: Sequence[str], paths: Sequence[str], names: Sequence[str], output: Optional[str]
) -> None:
    """Prints one line per image, logs what could not be read, and writes the file.

    Raises:
        ConfigError: The file cannot be written.
    """
    for index, classes, probabilities in zip(*answers, strict=True):
        pairs = zip(classes, probabilities, strict=True)
        print(printable(f'{paths[index]}: {"; ".join(f"{names[each]} {share:.1%}" for each, share in pairs)}'))
    sys.stdout.flush()
    for line in broken:
        logger.warning('error: %s', line)
    if broken:
        logger.warning('%d of %d images could not be read', len(broken), len(paths))
    if output is not None:
        write_table('--output', output, columns(answers, paths, names))
        logger.info('predictions of %d images are in %s', len(answers.indices), output)


def columns(answers: Answers, paths: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """One row per image: its path, the most probable class and its probability, then the second ones, and so on."""
    found: dict[str, Any] = {'image': [paths[index] for index in answers.indices]}
    for place in range(answers.classes.shape[1]):
        suffix = f'_{place + 1}' if place else ''
        found[f'prediction{suffix}'] = [names[each] for each in answers.classes[:, place]]
        found[f'probability{suffix}'] = answers.probabilities[:, place]
    return found
