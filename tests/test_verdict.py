"""Intervals, verdicts and the corrections behind them, against SciPy, known answers and simulated draws."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from finegan_aug.errors import DataError
from finegan_aug.randomness import normals, seed_for, uniforms
from finegan_aug.verdict import bootstrap_interval, compare, holm, judge, mean_interval


@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
def test_comparison_equals_the_paired_t_test_of_scipy(pairs: int) -> None:
    control, arm = normals(seed_for(0, "scores"), np.arange(2), pairs)
    found = compare(control=control.tolist(), arm=arm.tolist())
    expected = stats.ttest_rel(arm, control)
    interval = expected.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.mean == pytest.approx((arm - control).mean(), rel=1e-12)
    assert found.differences == pytest.approx((arm - control).tolist(), rel=1e-12)


@pytest.mark.parametrize(("pairs", "half_in_s"), [(3, 2.48), (5, 1.24), (8, 0.84), (10, 0.72)])
def test_half_width_is_the_published_multiple_of_the_spread(pairs: int, half_in_s: float) -> None:
    values = normals(seed_for(1, "values"), [0], pairs)[0]
    interval = mean_interval(values.tolist())
    assert interval is not None
    assert (interval[1] - interval[0]) / 2 / values.std(ddof=1) == pytest.approx(half_in_s, abs=0.005)


def test_interval_of_three_known_values() -> None:
    """Mean 2, s = 1, t(.975, 2) = 4.3026528: half-width 4.3026528 / sqrt(3)."""
    half = 4.302652729911275 / math.sqrt(3)
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), rel=1e-9)


@pytest.mark.parametrize("pairs", [3, 5])
def test_simulated_intervals_cover_the_true_gain_in_93_to_97_percent(pairs: int) -> None:
    """2,000 draws; a right interval leaves this range in about 4 of 100,000 seeds, and the seed is fixed."""
    draws = 0.7 + normals(seed_for(2, "coverage"), np.arange(2000), pairs)
    intervals = np.array([mean_interval(row.tolist()) for row in draws])
    covered = ((intervals[:, 0] <= 0.7) & (intervals[:, 1] >= 0.7)).mean()
    assert 0.93 <= covered <= 0.97


def test_no_true_gain_reads_helps_in_about_2_5_percent_and_hurts_as_often() -> None:
    draws = normals(seed_for(3, "null"), np.arange(4000), 5)
    words = [compare(control=[0.0] * 5, arm=row.tolist()).verdict for row in draws]
    assert words.count("helps") / 4000 == pytest.approx(0.025, abs=0.01)
    assert words.count("hurts") / 4000 == pytest.approx(0.025, abs=0.01)


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.1, 2.0), "helps"),
        ((-2.0, -0.1), "hurts"),
        ((-0.1, 2.0), "inconclusive"),
        ((0.0, 2.0), "inconclusive"),
        ((-2.0, 0.0), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_verdict_follows_from_the_ends_of_the_interval(interval: tuple[float, float] | None, word: str) -> None:
    assert judge(interval, pairs=3) == word


def test_two_pairs_never_claim_anything() -> None:
    found = compare(control=[0.5, 0.5], arm=[0.9, 0.9])
    assert found.interval == pytest.approx((0.4, 0.4))
    assert found.verdict == "inconclusive"


def test_one_pair_has_a_difference_but_no_interval() -> None:
    found = compare(control=[0.5], arm=[0.75])
    assert (found.mean, found.interval, found.p_value, found.verdict) == (0.25, None, None, "inconclusive")


def test_swapping_the_arms_swaps_the_verdict() -> None:
    better = compare(control=[0.5, 0.6, 0.7], arm=[0.61, 0.70, 0.80])
    worse = compare(control=[0.61, 0.70, 0.80], arm=[0.5, 0.6, 0.7])
    assert (better.verdict, worse.verdict) == ("helps", "hurts")
    assert worse.mean == pytest.approx(-better.mean)
    assert worse.p_value == pytest.approx(better.p_value)


def test_equal_scores_are_inconclusive_and_a_constant_gain_is_certain() -> None:
    same = compare(control=[0.5, 0.6, 0.7], arm=[0.5, 0.6, 0.7])
    assert (same.interval, same.p_value, same.verdict) == ((0.0, 0.0), 1.0, "inconclusive")
    gain = compare(control=[0.5, 0.5, 0.5], arm=[0.75, 0.75, 0.75])
    assert (gain.interval, gain.p_value, gain.verdict) == ((0.25, 0.25), 0.0, "helps")


def test_missing_pairs_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        compare(control=[0.5, 0.6, 0.7], arm=[0.5, 0.6])
    assert str(caught.value) == (
        "a paired comparison needs one score of each arm for each pair, found 3 and 2; run the missing pairs"
    )


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf]])
def test_scores_that_are_no_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="scores must be one or more finite numbers, found"):
        mean_interval(values)


def correct(share: float, pairs: int, images: int, purpose: str) -> np.ndarray:
    return uniforms(seed_for(4, purpose), np.arange(pairs), images) < share


def test_bootstrap_of_one_pair_equals_its_exact_distribution_on_three_images() -> None:
    """All 27 resamples of 3 images with gains -1, 0, +1 put 1/27 > 2.5 % on each of -1 and +1."""
    exact = [float(np.mean(drawn)) for drawn in product([-1.0, 0.0, 1.0], repeat=3)]
    expected = np.quantile(exact, [0.025, 0.975], method="inverted_cdf")
    found = bootstrap_interval(control=[[True, True, False]], arm=[[False, True, True]], seed=0)
    assert found == pytest.approx(expected.tolist())
    assert found == (-1.0, 1.0)


def test_bootstrap_half_width_is_near_the_normal_one_on_many_images() -> None:
    """Normal approximation: 1.96 times the standard error of the per-image gain; 2,000 draws give it to 5 %."""
    control, arm = correct(0.6, 3, 2000, "control"), correct(0.65, 3, 2000, "arm")
    gain = arm.mean(0) - control.mean(0)
    low, high = bootstrap_interval(control=control, arm=arm, seed=0)
    assert (high - low) / 2 == pytest.approx(1.96 * gain.std(ddof=1) / math.sqrt(2000), rel=0.05)
    assert (high + low) / 2 == pytest.approx(gain.mean(), abs=0.002)


def test_bootstrap_depends_on_the_seed_alone_and_not_on_the_blocks() -> None:
    control, arm = correct(0.6, 2, 3000, "control"), correct(0.65, 2, 3000, "arm")
    first = bootstrap_interval(control=control, arm=arm, seed=0, draws=1500)  # two blocks
    assert first == bootstrap_interval(control=control, arm=arm, seed=0, draws=1500)
    assert first != bootstrap_interval(control=control, arm=arm, seed=1, draws=1500)


def test_bootstrap_refuses_predictions_on_different_images() -> None:
    with pytest.raises(DataError, match=r"the same test images, found shapes \(3, 10\) and \(3, 9\); evaluate both"):
        bootstrap_interval(control=np.zeros((3, 10)), arm=np.zeros((3, 9)))


def test_holm_gives_the_textbook_values() -> None:
    """Four contrasts: .005*4, .01*3, .03*2, .04*1 raised to the one before; returned in the order given."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_keeps_one_contrast_and_never_exceeds_one() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_a_family_of_nulls_in_about_5_percent() -> None:
    """Family-wise error over 2,000 families of 5 true nulls; standard error 0.5 points."""
    families = uniforms(seed_for(5, "families"), np.arange(2000), 5)
    rejected = np.mean([min(holm(row.tolist())) < 0.05 for row in families])
    assert rejected == pytest.approx(0.05, abs=0.015)
