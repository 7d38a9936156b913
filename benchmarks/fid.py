"""FID from features: ours against torch-fidelity's and against scipy's matrix square root, in turns.

    python -m benchmarks.fid --rounds 3

Features are like those of a network: rectified, correlated, with a falling spectrum. Every way starts from the same
arrays in float64. Three times are compared:

    nothing kept      both arrays -> distance
    real side kept    the generated array -> distance, with what each way keeps of the real one at hand
    trace term        tr (S1 S2)^(1/2) alone, from what each way has just before it: two covariances for theirs; ours
                      has a factor of the real one, and of the generated one the covariance or the centred features

The differences are those from the sum of singular values by QR and SVD, which never squares anything; `--digits 40`
first checks all of them, this one included, against arithmetic of that many digits on small arrays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import mpmath  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from finegan_aug.metrics.frechet import fid, gaussian, root_trace

Features = npt.NDArray[np.float64]
T = TypeVar("T")
SIZES = ((10_000, 1280), (10_000, 2048), (1_000, 1280), (1_000, 2048))
SMALL_SIZES = ((48, 24), (24, 48))
THEIRS = ("torch-fidelity", "scipy")


class Timed(NamedTuple):
    """One distance, and the seconds of its parts."""

    value: float
    real_sec: float  # what can be kept of the real side
    rest_sec: float  # all else, the trace term included
    term_sec: float


def timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def features(count: int, width: int, seed: int) -> Features:
    """[count, width], rectified sums of as many factors of falling weight."""
    draw = np.random.default_rng(0)
    mix = draw.standard_normal((width, width)) * (np.arange(1, width + 1) ** -0.7)[:, None]
    z = np.random.default_rng(seed).standard_normal((count, width))
    return np.maximum(z @ mix + 0.1 * seed, 0)


def centred(values: Features) -> Features:
    """Rows whose product with their transpose is the covariance."""
    return np.asarray((values - values.mean(0)) / np.sqrt(len(values) - 1), np.float64)


def ours(real: Features, fake: Features) -> Timed:
    known, real_sec = timed(lambda: gaussian(real))
    value, rest_sec = timed(lambda: fid(real=known, fake=fake))
    rows = centred(fake)
    covariance = rows.T @ rows
    _, term_sec = timed(lambda: root_trace(known.factor, rows, covariance))
    return Timed(value, real_sec, rest_sec, term_sec)


def of_torch_fidelity(real: Features, fake: Features) -> Timed:
    """Eigenvalues of the product of the covariances."""
    known, real_sec = timed(lambda: fid_features_to_statistics(torch.from_numpy(real)))
    found, fake_sec = timed(lambda: fid_features_to_statistics(torch.from_numpy(fake)))
    metric, term_sec = timed(lambda: fid_statistics_to_metric(known, found, verbose=False))
    return Timed(float(metric["frechet_inception_distance"]), real_sec, fake_sec + term_sec, term_sec)


def of_scipy(real: Features, fake: Features) -> Timed:
    """The formula as it is written, with a matrix square root."""
    (m1, s1), real_sec = timed(lambda: (real.mean(0), np.cov(real, rowvar=False)))
    (m2, s2), fake_sec = timed(lambda: (fake.mean(0), np.cov(fake, rowvar=False)))
    root, term_sec = timed(lambda: scipy.linalg.sqrtm(s1 @ s2))
    value = (m1 - m2) @ (m1 - m2) + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real
    return Timed(float(value), real_sec, fake_sec + term_sec, term_sec)


def of_singular_values(real: Features, fake: Features) -> float:
    """The distance without a product of anything with itself."""
    a, b = (np.asarray(np.linalg.qr(centred(values), mode="r")) for values in (real, fake))
    shift = real.mean(0) - fake.mean(0)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + np.vdot(a, a) + np.vdot(b, b) - 2 * cross)


def of_many_digits(real: Features, fake: Features, digits: int) -> float:
    """The same in arithmetic of so many digits, from the very float64 features."""
    with mpmath.workdps(digits):
        parts = []
        for values in (real, fake):
            matrix, count = mpmath.matrix(values.tolist()), len(values)
            mean = mpmath.matrix([[mpmath.fsum(matrix[:, j]) / count for j in range(matrix.cols)]])
            rows = matrix - mpmath.ones(count, 1) * mean
            parts.append((mean, rows / mpmath.sqrt(count - 1)))
        (m1, a), (m2, b) = parts
        cross = mpmath.fsum(mpmath.svd_r(a * b.T, compute_uv=False))
        squares = [mpmath.fsum(x * x for x in part) for part in (m1 - m2, a, b)]
        return float(mpmath.fsum(squares) - 2 * cross)


WAYS: dict[str, Callable[[Features, Features], Timed]] = {
    "ours": ours,
    "torch-fidelity": of_torch_fidelity,
    "scipy": of_scipy,
}


def checked(count: int, width: int, digits: int) -> dict[str, float]:
    """Relative differences from arithmetic of many digits."""
    real, fake = features(count, width, 1), features(count, width, 2)
    exact = of_many_digits(real, fake, digits)
    row = {"n": count, "d": width, "value": exact}
    row |= {f"{name}: relative difference": abs(way(real, fake).value / exact - 1) for name, way in WAYS.items()}
    row["singular values: relative difference"] = abs(of_singular_values(real, fake) / exact - 1)
    return row


def measured(count: int, width: int, rounds: int) -> dict[str, object]:
    """Times of the other two as multiples of ours, median and range of the rounds, and differences in value."""
    real, fake = features(count, width, 1), features(count, width, 2)
    exact = of_singular_values(real, fake)
    found: dict[str, list[Timed]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            found[name].append(way(real, fake))
    row: dict[str, object] = {"n": count, "d": width, "value": exact}
    for name, turns in found.items():
        row[f"{name}: relative difference"] = abs(turns[0].value / exact - 1)
    parts: dict[str, Callable[[Timed], float]] = {
        "nothing kept": lambda turn: turn.real_sec + turn.rest_sec,
        "real side kept": lambda turn: turn.rest_sec,
        "trace term": lambda turn: turn.term_sec,
    }
    for part, seconds in parts.items():
        mine = [seconds(turn) for turn in found["ours"]]
        row[f"{part}: seconds of ours"] = statistics.median(mine)
        for name in THEIRS:
            others = [seconds(turn) for turn in found[name]]
            ratios = [other / own for own, other in zip(mine, others, strict=True)]
            middle = statistics.median(others) / statistics.median(mine)
            row[f"{part}: {name}"] = [middle, min(ratios), max(ratios)]
    return row


def main() -> None:
    """Measure and print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--digits", type=int, default=0, help="check small arrays against so many digits")
    parser.add_argument("--threads", type=int, default=2, help="of torch; set OMP_NUM_THREADS to the same for numpy")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, object]] = []
    for count, width in SMALL_SIZES if options.digits else ():
        rows.append({**checked(count, width, options.digits)})
        print(json.dumps(rows[-1], indent=1), flush=True)
    for count, width in SIZES:
        rows.append(measured(count, width, options.rounds))
        print(json.dumps(rows[-1], indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
