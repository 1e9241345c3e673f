"""Verify that the accuracy that a record states is the one that its weights have."""

import dataclasses
import math
from typing import Any, Optional

import timm
import torch
from torch import nn

from timm_alfa.data import AugConfig, DataConfig, create_data, inspect_data
from timm_alfa.data.datasets.registry import is_local
from timm_alfa.data.loaders.sampling import random_subset
from timm_alfa.errors import AlfaError, CheckpointError
from timm_alfa.options import resolve
from timm_alfa.training.options.parser import environment_of
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.program import program


def tolerance(top1: float, count: int, total: Optional[int]) -> float:
    """How far a random sample's accuracy may be from that of the whole split, in points.

    Four standard deviations of a sample drawn without replacement, plus one image or a thousandth of the sample for
    arithmetic in another precision or order. If the sample is the whole split, only the second is left.

    Args:
        top1: Percent, on the whole split.
        count: Images in the sample.
        total: Images in the split, or None if it is not known.
    """
    smallest = 1 / max(count, 2)
    share = min(max(top1 / 100, smallest), 1 - smallest)
    left_out = 1.0 if total is None else max(total - count, 0) / max(total - 1, 1)
    std = math.sqrt(share * (1 - share) / count * left_out)
    return 400 * std + 100 * max(1 / count, 0.001)


def check_accuracy(recorded: float, measured: float, count: int, total: Optional[int], split: str) -> None:
    """Compare the recorded accuracy with one measured now.

    Args:
        recorded: Percent, on the whole split.
        measured: Percent, on the sample.
        count: Images in the sample.
        total: Images in the split, or None if it is not known.
        split: Its name, for the message.

    Raises:
        CheckpointError: They are further apart than chance explains.
    """
    allowed = tolerance(recorded, count, total)
    if not abs(recorded - measured) <= allowed:
        raise CheckpointError(
            f'result.json states {recorded:.2f}% on {split}, but these weights have {measured:.2f}% on {count} of its '
            f'images (chance explains {allowed:.2f} points): publish the weights that were measured, or measure '
            f'these with {program("validate")}.'
        )


def sample_accuracy(
    model: nn.Module,
    run: FinishedRun,
    samples: int,
    data_dir: Optional[str] = None,
) -> Optional[tuple[float, int]]:
    """Measure the top-1 accuracy (percent) of a model on a random sample of the split that the record was measured on.

    Args:
        model: On the CPU, in evaluation mode.
        run: Its options say which data to read and how it was split.
        samples: The largest number of images; 0 for none.
        data_dir: Where the data is on this machine, if not where the run had it.

    Returns:
        The accuracy and the number of images, or None if the data is not on this machine: nothing is downloaded.

    Raises:
        DataError: The data is there, but an image cannot be read.
    """
    data = data_config(run, data_dir)
    if samples <= 0 or data is None or not is_local(data):
        return None
    try:
        info = inspect_data(data, seed=run.record.get('seed') or 0)
    except (AlfaError, OSError):
        return None

    # the split that the record was measured on, and of the training set (which is not needed) one image
    scored_val = run.evaluation.split == run.evaluation.chosen_on
    part = info.val if scored_val or info.test is None else info.test
    sample = dataclasses.replace(part, indices=random_subset(part.indices, min(samples, len(part)), seed=0))
    one = dataclasses.replace(info.train, indices=info.train.indices[:1])
    loaders = create_data(
        data,
        AugConfig(),
        model_config=timm.data.resolve_model_data_config(model),
        info=dataclasses.replace(info, train=one, val=sample, test=None),
    )
    try:
        return 100 * _count_correct(model, loaders.val) / len(sample), len(sample)
    finally:
        loaders.close()


@torch.no_grad()  # inference_mode does not reach the loader's thread, which reuses its tensors
def _count_correct(model: nn.Module, loader: Any) -> int:
    correct = [int((model(input).argmax(-1) == target).sum()) for input, target in loader]
    return sum(correct)


def data_config(run: FinishedRun, data_dir: Optional[str] = None) -> Optional[DataConfig]:
    """The run's data options, or None if its args.yaml does not hold them."""
    names = {field.name for field in dataclasses.fields(DataConfig)}
    values = {key: value for key, value in run.args.items() if key in names}
    if 'val_split' not in values:
        return None
    if loader := environment_of(run.args).get('loader'):  # what 'auto' stood for
        values['loader'] = loader
    values.update(dataset_download=False, workers=0, num_classes=run.record['num_classes'])
    if data_dir:
        values['data_dir'] = data_dir
    return resolve(DataConfig, values)[0]
