"""Is the accuracy that a record states the one that its weights have?"""
import math
from typing import Optional

from timm_alfa.errors import CheckpointError


def tolerance(top1: float, count: int, total: Optional[int]) -> float:
    """How far from `top1` (percent, of `total` images) a random sample of `count` of them may fall, in points.

    Four standard deviations of a sample drawn without replacement, and one image or a thousandth of them for
    arithmetic in another precision or order. Of the whole split that leaves the second alone.
    """
    share = min(max(top1 / 100, 1 / max(count, 2)), 1 - 1 / max(count, 2))
    left_out = 1. if total is None else max(total - count, 0) / max(total - 1, 1)
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
            'these with validate.py.')
