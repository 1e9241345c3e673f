"""Is the accuracy that a record states the one that its weights have?"""

import dataclasses
import math
from typing import Optional

import timm
import torch
from torch import nn

from timm_alfa.data import AugConfig, DataConfig, create_data, inspect_data
from timm_alfa.data.datasets.registry import is_local
from timm_alfa.data.loaders.sampling import random_subset
from timm_alfa.errors import AlfaError, CheckpointError
from timm_alfa.options import resolve
from timm_alfa.training.run_dir.finished import Run


def tolerance(top1: float, count: int, total: Optional[int]) -> float:
    """How far from `top1` (percent, of `total` images) a random sample of `count` of them may fall, in points.

    Four standard deviations of a sample drawn without replacement, and one image or a thousandth of them for
    arithmetic in another precision or order. Of the whole split that leaves the second alone.
    """
    share = min(max(top1 / 100, 1 / max(count, 2)), 1 - 1 / max(count, 2))
    left_out = 1.0 if total is None else max(total - count, 0) / max(total - 1, 1)
    return 400 * math.sqrt(share * (1 - share) / count * left_out) + 100 * max(1 / count, 0.001)


def check_reproduced(recorded: float, measured: float, count: int, total: Optional[int], split: str) -> None:
    """Compare the recorded accuracy with one measured now.

    Args:
        recorded: Percent, of the whole split.
        measured: Percent, of the sample.
        count: Images in the sample.
        total: Images in the split, where it is known.
        split: Its name, for the message.

    Raises:
        CheckpointError: They are further apart than chance explains.
    """
    allowed = tolerance(recorded, count, total)
    if not abs(recorded - measured) <= allowed:
        raise CheckpointError(
            f'result.json states {recorded:.2f}% on {split}, but these weights have {measured:.2f}% on {count} of its '
            f'images (chance explains {allowed:.2f} points): publish the weights that were measured, or measure '
            'these with validate.py.'
        )


def sample_accuracy(
    model: nn.Module,
    run: Run,
    samples: int,
    data_dir: Optional[str] = None,
) -> Optional[tuple[float, int]]:
    """Top-1 (percent) of a model on a random sample of the split that the record's accuracy is of.

    Args:
        model: On the CPU, in evaluation mode.
        run: Says which data, and how it was split.
        samples: Images at most; 0 for none.
        data_dir: Where the data is on this machine, if not where the run had it.

    Returns:
        Accuracy and number of images, or None where the data is not at hand: nothing is downloaded.

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
    part = info.val if run.evaluation.split == run.evaluation.chosen_on or info.test is None else info.test
    chosen = dataclasses.replace(part, indices=random_subset(part.indices, min(samples, len(part)), seed=0))
    one = dataclasses.replace(info.train, indices=info.train.indices[:1])  # the training set is not needed
    loaders = create_data(
        data,
        AugConfig(),
        model_config=timm.data.resolve_model_data_config(model),
        info=dataclasses.replace(info, train=one, val=chosen, test=None),
    )
    try:
        with torch.no_grad():  # inference_mode does not reach the loader's thread, which reuses its tensors
            hits = [int((model(input).argmax(-1) == target).sum()) for input, target in loaders.val]
    finally:
        loaders.close()
    return 100 * sum(hits) / len(chosen), len(chosen)


def data_config(run: Run, data_dir: Optional[str] = None) -> Optional[DataConfig]:
    """The run's data options, or None where its args.yaml does not hold them."""
    names = {field.name for field in dataclasses.fields(DataConfig)}
    values = {key: value for key, value in run.args.items() if key in names}
    if 'val_split' not in values:
        return None
    if loader := (run.args.get('environment') or {}).get('loader'):  # what 'auto' came to
        values['loader'] = loader
    values.update(dataset_download=False, workers=0, num_classes=run.record['num_classes'])
    if data_dir:
        values['data_dir'] = data_dir
    return resolve(DataConfig, values)[0]
