"""FID from features: ours against torch-fidelity's and against scipy's matrix square root, in turns.

    python -m benchmarks.fid --rounds 3

Features are like those of a network: rectified, correlated, with a falling spectrum. Every way starts from the same
arrays in float64 and ends with the distance.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from finegan_aug.metrics.frechet import fid

Features = npt.NDArray[np.float64]
SIZES = ((10_000, 1280), (10_000, 2048), (1_000, 1280), (1_000, 2048))


def features(count: int, width: int, seed: int) -> Features:
    """[count, width], rectified sums of as many factors of falling weight."""
    draw = np.random.default_rng(0)
    mix = draw.standard_normal((width, width)) * (np.arange(1, width + 1) ** -0.7)[:, None]
    z = np.random.default_rng(seed).standard_normal((count, width))
    return np.maximum(z @ mix + 0.1 * seed, 0)


def of_torch_fidelity(real: Features, fake: Features) -> float:
    """Eigenvalues of the product of the covariances."""
    both = [fid_features_to_statistics(torch.from_numpy(part)) for part in (real, fake)]
    return float(fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"])


def of_scipy(real: Features, fake: Features) -> float:
    """The formula as it is written, with a matrix square root."""
    s1, s2 = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2)
    shift = real.mean(0) - fake.mean(0)
    return float(shift @ shift + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real)


def main() -> None:
    """Measure and print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways: dict[str, Callable[[Features, Features], float]] = {
        "ours": lambda real, fake: fid(real=real, fake=fake),
        "torch-fidelity": of_torch_fidelity,
        "scipy": of_scipy,
    }
    rows = []
    for count, width in SIZES:
        real, fake = features(count, width, 1), features(count, width, 2)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        values = {}
        for _ in range(options.rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                values[name] = way(real, fake)
                seconds[name].append(time.perf_counter() - start)
        middle = {name: statistics.median(found) for name, found in seconds.items()}
        row = {"n": count, "d": width, "value": values["ours"]}
        for name in ("torch-fidelity", "scipy"):
            row[f"{name}: times faster"] = middle[name] / middle["ours"]
            row[f"{name}: relative difference"] = abs(values[name] / values["ours"] - 1)
        rows.append(row)
        print(row, flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
