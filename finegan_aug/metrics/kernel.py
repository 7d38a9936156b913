"""Kernel distance between features (KID): squared maximum mean discrepancy with a cubic kernel.

Binkowski et al., ICLR 2018, https://arxiv.org/abs/1801.01401, section 4: k(x, y) = (x.y / D + 1)^3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from finegan_aug.errors import DataError
from finegan_aug.metrics.arrays import Array, Floats, feature_pair
from finegan_aug.randomness import permutation, seed_for

_ROWS = 1024  # rows of the kernel held at once


class KernelDistance(NamedTuple):
    """Mean and standard deviation of the distance over subsets, and an interval for the mean.

    The interval is 95 %, mean ± 1.96 std sqrt(b / (n - b)) with b the subset size and n the smaller set: the
    spread of subsets scaled to the whole sample (Politis and Romano, Annals of Statistics 22, 1994, with the
    correction for drawing without replacement). None where the subsets are the whole set.
    """

    mean: float
    std: float
    interval: tuple[float, float] | None


def kid(
    *, real: Array, fake: Array, seed: int = 0, subset_size: int | None = None, subsets: int = 100
) -> KernelDistance:
    """Unbiased kernel distance, averaged over seeded subsets; near 0, also below, for equal laws.

    The kernel is evaluated once and summed for all subsets together, so time grows with N^2 and not with the
    number of subsets.

    Args:
        real, fake: float [N, D], N >= 2, features from one extractor.
        seed: chooses the subsets.
        subset_size: images of each set in a subset; default the smaller of 1,000 and half of the smaller set.
        subsets: how many subsets.

    Raises:
        DataError: unusable features, or a subset size outside 2 .. N.
    """
    real64, fake64 = feature_pair(real=real, fake=fake)
    smaller = min(len(real64), len(fake64))
    size = max(2, min(1000, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise DataError(f"subset_size must lie in 2..{smaller}, found {size}", "lower it or use more images")
    if subsets < 1:
        raise DataError(f"subsets must be at least 1, found {subsets}", "use the default of 100")
    R = _choices(seed_for(seed, "kid/real"), len(real64), size, subsets)
    F = _choices(seed_for(seed, "kid/fake"), len(fake64), size, subsets)
    within = (
        _kernel_sums(real64, real64, R, R, diagonal=False) + _kernel_sums(fake64, fake64, F, F, diagonal=False)
    ) / (size * (size - 1))
    values = within - 2.0 * _kernel_sums(real64, fake64, R, F, diagonal=True) / size**2
    mean, std = float(values.mean()), float(values.std())
    if size == smaller:
        return KernelDistance(mean, std, None)
    half = 1.96 * std * float(np.sqrt(size / (smaller - size)))
    return KernelDistance(mean, std, (mean - half, mean + half))


def _choices(key: int, count: int, size: int, subsets: int) -> Floats:
    """0/1 [subsets, count], `size` ones in each row."""
    chosen = np.zeros((subsets, count))
    for row in range(subsets):
        chosen[row, permutation(seed_for(key, "subset", row), count)[:size]] = 1.0
    return chosen


def _kernel_sums(x: Floats, y: Floats, of_x: Floats, of_y: Floats, *, diagonal: bool) -> Floats:
    """Sum of k(x_i, y_j) over the chosen i and j, float64 [subsets]; without i = j unless `diagonal`."""
    total: Floats = np.zeros(len(of_x))
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = (x[rows] @ y.T / x.shape[1] + 1.0) ** 3
        if not diagonal:
            number = np.arange(len(kernel))
            kernel[number, start + number] = 0.0
        total += ((of_y @ kernel.T) * of_x[:, rows]).sum(axis=1)
    return total
