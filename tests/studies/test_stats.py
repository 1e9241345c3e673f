"""Statistics against known values, simulation and scipy's own tests."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from studies import stats
from studies.stats import HELD, NOT_HELD, UNDECIDED, Difference

# Student's sleep data (1908): hours gained with two drugs by the same ten people.
FIRST = dict(enumerate((0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)))
SECOND = dict(enumerate((1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)))


def test_student_s_own_example():
    found = stats.paired(SECOND, FIRST)
    assert (found.n, round(found.mean, 2)) == (10, 1.58)
    assert (round(found.low, 4), round(found.high, 4)) == (0.7001, 2.4599)  # as R's t.test(paired = TRUE) prints them


def test_interval_is_that_of_scipy_at_other_levels():
    interval = ttest_rel(list(SECOND.values()), list(FIRST.values())).confidence_interval(0.9)
    found = stats.paired(SECOND, FIRST, confidence=0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_only_common_seeds_are_paired_and_by_seed_not_by_order():
    found = stats.paired({3: 5.0, 1: 1.0, 9: 100.0}, {1: 0.0, 3: 4.0, 2: -50.0})
    assert (found.mean, found.std, found.n) == (1.0, 0.0, 2)  # by order they would differ by 5 and by -3
    assert stats.paired({1: 1.0}, {2: 1.0}) is None


def test_a_contrast_is_the_paired_difference_of_weighted_sums():
    half = {seed: (FIRST[seed] + SECOND[seed]) / 2 for seed in range(9)}  # one of the ten is missing
    found = stats.contrast([(0.5, FIRST), (0.5, SECOND), (-1.0, half)])
    assert found.n == 9 and found.mean == pytest.approx(0, abs=1e-12)
    more = {seed: value + seed for seed, value in half.items()}
    assert stats.contrast([(1.0, more), (-0.5, FIRST), (-0.5, SECOND)]).mean == pytest.approx(4)
    assert stats.contrast([(1.0, SECOND), (-1.0, FIRST)]) == stats.paired(SECOND, FIRST)


def test_sample():
    assert stats.sample([]) is None
    assert stats.sample([3.0]) == stats.Sample(3.0, None, 1)
    assert stats.sample([1.0, 2.0, 3.0]) == stats.Sample(2.0, 1.0, 3)


@pytest.mark.parametrize(
    ('low', 'high', 'claim', 'wanted'),
    [
        (0.1, 0.9, 1, HELD),
        (0.1, 0.9, -1, NOT_HELD),
        (-0.9, -0.1, -1, HELD),
        (-0.9, -0.1, 1, NOT_HELD),
        (-0.1, 0.9, 1, UNDECIDED),
        (0.0, 0.9, 1, UNDECIDED),
        (0.1, 0.9, None, None),
    ],
)
def test_verdict(low, high, claim, wanted):
    assert stats.verdict(Difference((low + high) / 2, 1.0, 5, low, high), claim) == wanted


def test_too_few_pairs_decide_nothing_even_when_they_agree():
    two = stats.paired({0: 1.0, 1: 1.0}, {0: 0.5, 1: 0.5})
    one = stats.paired({0: 1.0}, {0: 0.5})
    for found in (one, two):
        assert found.mean == 0.5 and found.low is found.high is None
        assert stats.verdict(found, 1) == UNDECIDED
    assert stats.verdict(None, 1) is None


@pytest.mark.parametrize(('effect', 'pairs'), [(0.5, 34), (0.8, 15), (0.2, 199), (-0.5, 34)])
def test_pairs_needed_are_those_of_the_textbooks(effect, pairs):
    assert stats.pairs_needed(effect) == pairs  # as G*Power gives them: two-sided, 0.05, power 0.8


def test_power_is_a_number_for_every_effect_and_grows_with_pairs():
    for effect in np.linspace(0.02, 5, 60):
        powers = [stats.power(effect, n) for n in (2, 3, 5, 10, 50, 250, 1000)]
        assert powers == sorted(powers)
        assert 0.05 <= powers[0] <= powers[-1] <= 1 + 1e-12


def test_power_by_simulation():
    draws = np.random.default_rng(0).normal(0.9, 1.0, (20_000, 8))
    t = draws.mean(1) / draws.std(1, ddof=1) * math.sqrt(8)
    assert stats.power(0.9, 8) == pytest.approx((abs(t) > 2.3646).mean(), abs=0.01)


def test_more_pairs():
    assert stats.more_pairs(Difference(0.5, 1.0, 10, -0.2, 1.2)) == 24
    assert stats.more_pairs(Difference(0.5, 1.0, 34, -0.2, 1.2)) == 1
    assert stats.more_pairs(Difference(0.001, 1.0, 10, -0.7, 0.7)) is None
    assert stats.more_pairs(Difference(0.0, 1.0, 10, -0.7, 0.7)) is None
