"""Whether one arm beats another: paired differences, their interval, and one of three words.

A pair fixes the subset, the initialisation and the order of samples, so two arms of one pair differ in the
training data alone. The interval over pairs covers training and subset variation on this test set; the bootstrap
over test images covers the sample of test images. Neither covers the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from finegan_aug.errors import DataError
from finegan_aug.randomness import seed_for, uniforms

Verdict = Literal["helps", "hurts", "inconclusive"]
Floats = npt.NDArray[np.float64]

MIN_PAIRS = 3  # fewer pairs give an interval but never a claim
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Arm against control over pairs; every number in the unit of the scores."""

    differences: tuple[float, ...]  # score(arm) - score(control), one for each pair
    mean: float
    interval: tuple[float, float] | None  # None with a single pair
    p_value: float | None  # two-sided paired t test; None with a single pair
    verdict: Verdict


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student t interval of the mean, mean ± t·s/√n; None for a single value.

    Args:
        values: at least one finite number. The half-width is 2.48 s for 3 values, 1.24 s for 5, 0.72 s for 10.
        confidence: coverage, in (0, 1).
    """
    sample = _finite(values)
    if len(sample) < 2:
        return None
    quantile = float(stats.t.ppf(0.5 + confidence / 2, len(sample) - 1))
    half = quantile * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    center = float(sample.mean())
    return center - half, center + half


def judge(interval: tuple[float, float] | None, pairs: int) -> Verdict:
    """`helps` if the interval lies above 0, `hurts` if it lies below, otherwise `inconclusive`.

    Args:
        interval: lower and upper end of the mean difference, None where there is none.
        pairs: number of pairs behind it; fewer than 3 are always inconclusive.
    """
    if interval is None or pairs < MIN_PAIRS:
        return "inconclusive"
    low, high = interval
    if low > 0:
        return "helps"
    return "hurts" if high < 0 else "inconclusive"


def compare(*, control: Sequence[float], arm: Sequence[float]) -> Comparison:
    """Paired comparison of an arm with its control.

    Args:
        control: scores of the control, one for each pair.
        arm: scores of the arm, in the same order of pairs.

    Raises:
        DataError: the lengths differ, or a score is missing or not finite.
    """
    if len(control) != len(arm):
        raise DataError(
            f"a paired comparison needs one score of each arm for each pair, found {len(control)} and {len(arm)}",
            "run the missing pairs",
        )
    differences = _finite(arm) - _finite(control)
    interval = mean_interval(differences.tolist())
    return Comparison(
        differences=tuple(differences.tolist()),
        mean=float(differences.mean()),
        interval=interval,
        p_value=None if interval is None else _p_value(differences),
        verdict=judge(interval, len(differences)),
    )


def bootstrap_interval(
    *,
    control: npt.ArrayLike,
    arm: npt.ArrayLike,
    seed: int = 0,
    draws: int = 2000,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile interval of the accuracy difference under resampling of the test images.

    An image is drawn with the predictions of both arms and of all pairs, which keeps their correlation
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3).

    Args:
        control: bool [pairs, images], True where the control names the class of the image.
        arm: the same for the arm, same images in the same order.
        seed: decides the draws.
        draws: number of resampled test sets.
        confidence: coverage, in (0, 1).

    Raises:
        DataError: the shapes differ or there is no image.
    """
    first, second = np.asarray(control, dtype=np.float64), np.asarray(arm, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape or first.size == 0:
        raise DataError(
            f"both arms must have predicted the same test images, found shapes {first.shape} and {second.shape}",
            "evaluate both arms on one test set",
        )
    gain = (second - first).mean(axis=0)  # [images]
    key = seed_for(seed, "bootstrap")
    block = max(1, 4_000_000 // len(gain))  # 32 MB of draws at once
    means = [
        gain[(uniforms(key, np.arange(start, min(start + block, draws)), len(gain)) * len(gain)).astype(np.int64)].mean(
            1
        )
        for start in range(0, draws, block)
    ]
    low, high = np.quantile(np.concatenate(means), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for the number of contrasts (Holm, Scand. J. Statistics 6, 1979), in the given order."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _p_value(differences: Floats) -> float:
    """Two-sided t test of mean 0; without any spread 1 for differences of 0 and 0 for others."""
    spread = float(differences.std(ddof=1))
    if spread == 0.0:
        return 1.0 if differences[0] == 0.0 else 0.0
    statistic = float(differences.mean()) / (spread / math.sqrt(len(differences)))
    return float(2.0 * stats.t.sf(abs(statistic), len(differences) - 1))


def _finite(values: Sequence[float]) -> Floats:
    """Float64 array of at least one finite number."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise DataError(
            f"scores must be one or more finite numbers, found {list(values)!r}", "run the failed or missing cells anew"
        )
    return array
