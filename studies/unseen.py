"""Unseen images: those that a run neither trains nor chooses its checkpoint on.

They are the test split and, with `--score-unused`, the labeled training images that the run left out. A record holds
one bit for each. Both sets count by their number of images: every image has the same weight.
"""

from typing import Any, Callable, Mapping, Optional

import numpy as np

from timm_alfa.utils.bits import PackedBits

Record = Mapping[str, Any]
PARTS = ('test', 'unused')


def correct(record: Record, part: str) -> Optional[np.ndarray]:
    """Whether each image of a part was classified correctly, bool (images,); None if the record does not hold it.

    Args:
        record: Of a run.
        part: 'test', 'unused' or 'val'.
    """
    packed = record.get(f'{part}_correct')
    return None if packed is None else PackedBits(**packed).unpack()


def unseen_correct(record: Record) -> Optional[np.ndarray]:
    """Whether each unseen image was classified correctly: the test split, then the unused images; None without both."""
    found = [correct(record, part) for part in PARTS]
    return None if any(part is None for part in found) else np.concatenate(found)


def unseen_top1(record: Record) -> Optional[float]:
    """Top-1 accuracy on unseen images, in percent; None if the record does not hold both parts."""
    packed = [record.get(f'{part}_correct') for part in PARTS]
    if None in packed:
        return None
    return 100 * sum(part['correct'] for part in packed) / sum(part['images'] for part in packed)


def unseen_loss(record: Record) -> Optional[float]:
    """Mean cross-entropy on unseen images; None if the record does not hold both parts."""
    losses = [record.get(f'{part}_loss') for part in PARTS]
    counts = [record.get(f'{part}_images') for part in PARTS]
    if None in (*losses, *counts):
        return None
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


METRICS: dict[str, Callable[[Record], Optional[float]]] = {'unseen_top1': unseen_top1, 'unseen_loss': unseen_loss}
