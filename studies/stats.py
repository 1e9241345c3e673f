"""Means, paired differences and verdicts: pure functions of numbers."""

import math
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

HELD, NOT_HELD, UNDECIDED = 'held', 'not held', 'undecided'
MOST_SEEDS = 1000
FEWEST_PAIRS = 3  # two differences can agree by chance to the last image


@dataclass(frozen=True)
class Sample:
    """A summary of some numbers.

    Attributes:
        mean: Their mean.
        std: Their standard deviation, with n - 1; None for a single number.
        n: How many there are.
    """

    mean: float
    std: Optional[float]
    n: int


@dataclass(frozen=True)
class Difference:
    """A summary of paired differences.

    Attributes:
        mean: Their mean.
        std: Their standard deviation, with n - 1; None for a single pair.
        n: Number of pairs.
        low: Lower end of the confidence interval; None for fewer than `FEWEST_PAIRS`.
        high: Upper end of the confidence interval.
    """

    mean: float
    std: Optional[float]
    n: int
    low: Optional[float] = None
    high: Optional[float] = None


def sample(values: Sequence[float]) -> Optional[Sample]:
    """Summarizes numbers; None if there are none."""
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Sample(mean, std, n)


def paired(ours: Mapping[int, float], other: Mapping[int, float], confidence: float = 0.95) -> Optional[Difference]:
    """Compares runs with the same seed.

    Args:
        ours: Values by seed.
        other: Values to compare with, by seed.
        confidence: Level of the interval, which is Student's t.

    Returns:
        None if there is no common seed.
    """
    return contrast([(1.0, ours), (-1.0, other)], confidence)


def weighted_sums(terms: Sequence[tuple[float, Mapping[int, float]]]) -> dict[int, float]:
    """A weighted sum of several rows for each seed that all of them have.

    Args:
        terms: A factor and values by seed for each row.
    """
    seeds = sorted(set.intersection(*({*values} for _, values in terms)))
    return {seed: math.fsum(factor * values[seed] for factor, values in terms) for seed in seeds}


def contrast(terms: Sequence[tuple[float, Mapping[int, float]]], confidence: float = 0.95) -> Optional[Difference]:
    """Summarizes a weighted sum of several rows, taken seed by seed.

    Args:
        terms: A factor and values by seed for each row.
        confidence: Level of the interval, which is Student's t.

    Returns:
        None if there is no seed that all rows have.
    """
    found = sample(list(weighted_sums(terms).values()))
    if found is None or found.n < FEWEST_PAIRS:
        return None if found is None else Difference(found.mean, found.std, found.n)
    from scipy.stats import t

    half = t.ppf(0.5 + confidence / 2, found.n - 1) * found.std / math.sqrt(found.n)
    return Difference(found.mean, found.std, found.n, found.mean - half, found.mean + half)


def verdict(difference: Optional[Difference], claim: Optional[int]) -> Optional[str]:
    """Decides whether a claim of direction held.

    Args:
        difference: What was found.
        claim: 1 for 'better', -1 for 'worse', None for no claim.

    Returns:
        'held' or 'not held' if there are at least `FEWEST_PAIRS` and the interval lies on one side of zero, else
        'undecided'; None without a claim or a pair.
    """
    if difference is None or claim is None:
        return None
    if difference.n < FEWEST_PAIRS or difference.low <= 0 <= difference.high:
        return UNDECIDED
    return HELD if (difference.low > 0) == (claim > 0) else NOT_HELD


def power(effect: float, n: int, confidence: float = 0.95) -> float:
    """The power of the two-sided paired t test.

    Args:
        effect: Mean of the differences, divided by their standard deviation.
        n: Number of pairs, at least 2.
        confidence: Level of the test.
    """
    # by way of F, the square of t: scipy's noncentral t is nan for many large effects
    from scipy.stats import ncf, t

    critical = t.ppf(0.5 + confidence / 2, n - 1)
    return float(ncf.sf(critical**2, 1, n - 1, n * effect**2))


def pairs_needed(effect: float, wanted: float = 0.8, confidence: float = 0.95) -> Optional[int]:
    """The smallest number of pairs with a power of `wanted`; None if that is more than `MOST_SEEDS`."""
    if not effect or power(effect, MOST_SEEDS, confidence) < wanted:
        return None
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        if power(effect, middle, confidence) >= wanted:
            high = middle
        else:
            low = middle + 1
    return low


def more_pairs(difference: Difference, wanted: float = 0.8) -> Optional[int]:
    """How many more pairs an undecided difference needs, if it is as large as it looks now.

    Args:
        difference: Of at least `FEWEST_PAIRS` pairs.
        wanted: The power to reach.

    Returns:
        At least 1; None if more than `MOST_SEEDS` would be needed.
    """
    if not difference.std:
        return 1
    needed = pairs_needed(difference.mean / difference.std, wanted)
    return None if needed is None else max(1, needed - difference.n)
