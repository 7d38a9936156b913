"""Precision and recall, density and coverage: balls around real and generated features.

Kynkäänniemi et al., NeurIPS 2019, https://arxiv.org/abs/1904.06991, equations 1 and 2 (precision, recall);
Naeem et al., ICML 2020, https://arxiv.org/abs/2002.09797, equations 4 and 5 (density, coverage).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finegan_aug.errors import DataError
from finegan_aug.metrics.arrays import Array, feature_pair

_ROWS = 512  # rows of the distance matrix held at once


class ManifoldScores(NamedTuple):
    """Precision, recall and coverage lie in [0, 1]; density is at least 0 and near 1 for equal laws."""

    precision: float  # share of generated images inside the ball of some real image
    recall: float  # share of real images inside the ball of some generated image
    density: float  # balls of real images around a generated image, divided by k, averaged
    coverage: float  # share of real images with a generated image in their ball


def prdc(*, real: Array, fake: Array, k: int = 5) -> ManifoldScores:
    """Precision, recall, density and coverage; the ball of an image reaches its k-th neighbour in its own set.

    Args:
        real, fake: float [N, D], N > k, features from one extractor.
        k: which neighbour, itself not counted.

    Raises:
        DataError: unusable features, or k outside 1 .. N - 1.
    """
    arrays = feature_pair(real=real, fake=fake)
    smaller = min(map(len, arrays))
    if not 1 <= k < smaller:
        raise DataError(f"k must lie in 1..{smaller - 1}, found {k}", "lower k or use more images")
    reals, fakes = map(torch.from_numpy, arrays)
    real_radius, fake_radius = _radii(reals, k), _radii(fakes, k)
    balls_around_fake = torch.zeros(len(fakes))
    recalled = covered = 0
    for rows, radius in zip(torch.split(reals, _ROWS), torch.split(real_radius, _ROWS), strict=True):
        distance = _distances(rows, fakes)
        inside = distance <= radius[:, None]
        balls_around_fake += inside.sum(dim=0)
        covered += int(inside.any(dim=1).sum())
        recalled += int((distance <= fake_radius).any(dim=1).sum())
    return ManifoldScores(
        precision=float((balls_around_fake > 0).double().mean()),
        recall=recalled / len(reals),
        density=float(balls_around_fake.double().mean()) / k,
        coverage=covered / len(reals),
    )


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances [len(x), len(y)], each pair by itself: the same in any block, 0 for equal rows."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(x: Tensor, k: int) -> Tensor:
    """Distance to the k-th other row, [len(x)]; the row itself is the nearest."""
    return torch.cat([_distances(rows, x).kthvalue(k + 1, dim=1).values for rows in torch.split(x, _ROWS)])
