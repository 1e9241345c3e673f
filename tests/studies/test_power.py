"""Each formula against a simulation whose truth is known."""

import math

import numpy as np
import pytest

from studies import power, stats

DIFFICULTY = np.random.default_rng(1).beta(4, 1.5, 200_000)  # chance of each image of a population to be correct


def networks(count, std, images, random):
    """Answers of networks whose true accuracy varies: each answers all images independently, given its quality."""
    quality = random.normal(0, std, (count, 1))
    chances = np.clip(DIFFICULTY[random.integers(len(DIFFICULTY), size=images)] + quality, 0, 1)
    return random.random((count, images)) < chances


@pytest.mark.parametrize('std', [0.0, 0.01])
def test_spread_of_networks_is_found_under_the_noise_of_the_images(std):
    random = np.random.default_rng(2)
    found = [power.spread(networks(5, std, 400, random)) for _ in range(1500)]
    true = np.std(np.clip(DIFFICULTY + random.normal(0, std, (300, 1)), 0, 1).mean(1))  # clipping moves it

    # the estimate before it is cut off at zero, which has no bias
    variances = [400 / 399 * (each.observed**2 - each.images**2) / 100**2 for each in found]
    error = np.std(variances) / math.sqrt(len(found))
    assert abs(np.mean(variances) - true**2) < 3 * error
    assert error < 0.3 * 0.01**2, 'the test would accept anything'
    assert np.mean([each.observed**2 for each in found]) > 3 * 100**2 * true**2, 'mostly noise of the images'


def test_spread_of_paired_differences():
    """Two methods share the quality that their seed gives them: it cancels, and so does most of the variance."""
    random = np.random.default_rng(3)
    variances = []
    for _ in range(600):
        chances = DIFFICULTY[random.integers(len(DIFFICULTY), size=500)]
        shared, own = random.normal(0, 0.04, (6, 1)), random.normal(0, 0.015, (2, 6, 1))
        ours, other = (random.random((6, 500)) < chances * 0.6 + 0.2 + shared + each for each in own)
        found = power.spread(ours.astype(float) - other)
        variances.append(500 / 499 * (found.observed**2 - found.images**2) / 100**2)
    error = np.std(variances) / math.sqrt(len(variances))
    assert abs(np.mean(variances) - 2 * 0.015**2) < 3 * error and error < 0.1 * 2 * 0.015**2


def test_parts_of_a_spread_by_hand():
    """Two runs, four images: means 0.5 and 1; two images differ, each with a variance of 0.5."""
    found = power.spread(np.array([[1, 1, 0, 0], [1, 1, 1, 1]]))
    assert found.observed == pytest.approx(100 * math.sqrt(0.125))
    assert found.images == pytest.approx(100 * math.sqrt(2 * 0.5 / 16))
    assert found.networks == pytest.approx(100 * math.sqrt(4 / 3 * (0.125 - 0.0625)))
    assert found.runs == 2


def test_a_negative_variance_is_shown_as_none():
    found = power.spread(np.array([[1, 0], [0, 1]]))
    assert (found.observed, found.networks) == (0, 0) and found.images > 0


@pytest.mark.parametrize('scores', [np.ones((1, 9)), np.ones((9, 1))])
def test_one_run_or_one_image_has_no_spread(scores):
    assert power.spread(scores) is None


def differences(wins, ties, losses):
    return [0.25] * wins + [0.0] * ties + [-1.5] * losses


@pytest.mark.parametrize('counts', [(9, 0, 3), (20, 0, 9), (7, 3, 4), (30, 1, 2)])
def test_bootstrap_interval_is_that_of_a_simulation(counts):
    found, n = power.superiority(differences(*counts)), sum(counts)
    won = np.repeat([1.0, 0.5, 0.0], counts)
    draws = won[np.random.default_rng(4).integers(n, size=(100_000, n))].mean(1)
    assert found.probability == pytest.approx(won.mean()) and found.n == n
    for end, level in ((found.low, 0.025), (found.high, 0.975)):
        # between the two percentiles that a simulation of this size cannot separate
        assert np.quantile(draws, level - 0.002) <= end + 1e-9 <= np.quantile(draws, level + 0.002) + 2e-9


def test_few_pairs_give_no_interval():
    found = power.superiority(differences(10, 0, 0))
    assert (found.n, found.probability, found.low, found.high) == (10, 1.0, 1.0, 1.0)
    assert power.superiority(differences(9, 0, 0)) is None


@pytest.mark.parametrize(('arm', 'pairs'), [(0.15, 7), (0.20, 10), (0.25, 13)])
def test_pairs_for_three_tenths_of_a_point(arm, pairs):
    """Two independent arms with the same standard deviation."""
    assert power.pairs_for(0.3, stats.Difference(0.1, math.sqrt(2) * arm, 10)) == pairs


def test_pairs_needed_have_that_power_in_a_simulation():
    found = stats.Difference(0.1, 0.4, 10)
    n = power.pairs_for(0.3, found)
    draws = np.random.default_rng(5).normal(0.3, 0.4, (20_000, n))
    from scipy.stats import t

    statistic = draws.mean(1) / draws.std(1, ddof=1) * math.sqrt(n)
    assert (abs(statistic) > t.ppf(0.975, n - 1)).mean() == pytest.approx(stats.power(0.3 / 0.4, n), abs=0.01)
    assert stats.power(0.3 / 0.4, n) >= 0.8 > stats.power(0.3 / 0.4, n - 1)


@pytest.mark.parametrize('found', [stats.Difference(0.5, 0.3, 2), stats.Difference(0.5, 0.0, 9)])
def test_what_has_no_spread_says_nothing_of_pairs(found):
    assert power.pairs_for(0.3, found) is None
