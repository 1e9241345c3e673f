"""Where a curve that was measured at a few step sizes first reaches a target."""

import math
from typing import Sequence


def first_crossing(sizes: Sequence[float], rises: Sequence[float], target: float) -> float:
    """The smallest size at which the rise reaches the target.

    It is interpolated between two measured sizes: along a line in the logarithms of both, or where the lower rise is
    not positive, in the rise and the logarithm of the size.

    Args:
        sizes: Increasing and positive.
        rises: One for each; NaN counts as infinite.

    Returns:
        The size; 0 if even the first rise is above the target, infinity if none reaches it.
    """
    rises = [math.inf if math.isnan(rise) else rise for rise in rises]
    index = next((index for index, rise in enumerate(rises) if rise >= target), None)
    if index is None:
        return math.inf
    if index == 0:
        return 0.0 if rises[0] > target else sizes[0]
    low, high, goal = rises[index - 1], rises[index], target
    if low > 0:
        low, high, goal = math.log(low), math.log(high), math.log(goal)
    share = (goal - low) / (high - low)
    return sizes[index - 1] * (sizes[index] / sizes[index - 1]) ** share
