"""How much of a spread is the finite test set, and what a number of pairs can show: pure functions of numbers."""

import math
from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

from studies import stats

# All of a few pairs would give a bootstrap interval without width.
FEWEST_FOR_BOOTSTRAP = 10


@dataclass(frozen=True)
class Spread:
    """The standard deviation of mean scores over runs, and its two parts; all in points.

    Attributes:
        observed: Of the mean scores on these images.
        images: The part that other images would have changed: images on which the runs differ by chance.
        networks: The part of the networks themselves, as it would be on infinitely many images; 0 if the estimate of
            its variance is negative.
        runs: Number of runs.
    """

    observed: float
    images: float
    networks: float
    runs: int


@dataclass(frozen=True)
class Superiority:
    """The probability that one method beats another one with the same seed.

    Attributes:
        probability: Share of the pairs that it wins; a tie counts as half.
        n: Number of pairs.
        low: Lower end of the percentile interval of the paired bootstrap.
        high: Upper end.
    """

    probability: float
    n: int
    low: float
    high: float


def spread(scores: np.ndarray) -> Optional[Spread]:
    """Separates the noise of a finite test set from the variance between networks.

    Jordan, "On the Variance of Neural Network Training with respect to Test Sets and Distributions" (ICLR 2024),
    equation 3: with s_i a run's score on image i of n, the variance over runs of the mean score is

        Var(mean_i s_i) = 1/n^2 sum_i Var(s_i) + 1/n^2 sum_{i != j} Cov(s_i, s_j).

    The first sum is the noise of a finite test set. On infinitely many images only the covariances between different
    images are left, of which there are n (n - 1):

        Var(true mean) = n / (n - 1) (Var(mean_i s_i) - 1/n^2 sum_i Var(s_i)).

    Variances over runs have k - 1 in the denominator, so that the estimate is unbiased for any number k of runs.

    Args:
        scores: (runs, images): 0 or 1 for wrong or correct; for a paired difference the difference of two of these.
            All runs have the same images.

    Returns:
        None for fewer than two runs or images.
    """
    runs, images = scores.shape
    if runs < 2 or images < 2:
        return None
    observed = float(np.var(scores.mean(1), ddof=1))
    noise = float(np.var(scores, axis=0, ddof=1).sum()) / images**2
    true = images / (images - 1) * (observed - noise)
    return Spread(*(100 * math.sqrt(max(0.0, variance)) for variance in (observed, noise, true)), runs)


def superiority(differences: Sequence[float], confidence: float = 0.95) -> Optional[Superiority]:
    """Estimates P(A > B), with the interval of the paired bootstrap.

    Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks" (2021): pairs are drawn with
    replacement, and the interval holds the percentiles of the share of wins. Its distribution is computed, not
    simulated: twice the number of wins in n draws is a sum of n independent values 0, 1 (a tie) or 2.

    Args:
        differences: A minus B, one per pair.
        confidence: Level of the interval.

    Returns:
        None for fewer than `FEWEST_FOR_BOOTSTRAP` pairs.
    """
    n = len(differences)
    if n < FEWEST_FOR_BOOTSTRAP:
        return None

    # the shares of losses, ties and wins
    signs = np.sign(np.asarray(differences)).astype(int)
    shares = np.bincount(signs + 1, minlength=3) / n

    # the distribution of twice the number of wins in as many draws
    distribution = np.ones(1)
    for _ in range(n):
        distribution = np.convolve(distribution, shares)
    below = np.cumsum(distribution)
    tail = (1 - confidence) / 2
    low, high = (int(np.searchsorted(below, level - 1e-12)) for level in (tail, 1 - tail))
    return Superiority(float(shares @ (0.0, 0.5, 1.0)), n, low / (2 * n), high / (2 * n))


def pairs_for(points: float, difference: stats.Difference, wanted: float = 0.8) -> Optional[int]:
    """How many pairs find a true difference of so many points, at the standard deviation that was observed.

    Args:
        points: The difference to find.
        difference: Of the pairs so far.
        wanted: Power of the paired t test at 5%.

    Returns:
        None for fewer than `stats.FEWEST_PAIRS` pairs, without a spread, or if more than `stats.MOST_SEEDS` are needed.
    """
    if difference.n < stats.FEWEST_PAIRS or not difference.std:
        return None
    return stats.pairs_needed(points / difference.std, wanted)
