"""How far images lie from the nearest training image in feature space, and how near is a copy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROWS = 512  # rows of the distance matrix held at once


def nearest_distances(rows: Tensor, real: Tensor) -> Tensor:
    """Euclidean distance of each of `rows`, float64 [N, D], to the nearest of `real`, float64 [M, D]; float64 [N]."""
    return torch.cat([_to_nearest(part, real, torch.cdist(part, real)) for part in torch.split(rows, _ROWS)])


def copy_distance(real: Tensor) -> float:
    """The distance up to which an image counts as a copy of one of `real`, float64 [M, D].

    The 1st percentile of the distances from each of them to the nearest other; 0 where there is no other. Rows that are
    equal count once: a few photographs that are there twice would else make every distance too far for a copy.
    """
    real = torch.unique(real, dim=0)
    if len(real) < 2:
        return 0.0
    between = []
    for start in range(0, len(real), _ROWS):
        rows = real[start : start + _ROWS]
        distances, own = torch.cdist(rows, real), torch.arange(len(rows))
        distances[own, start + own] = math.inf
        between.append(_to_nearest(rows, real, distances))
    return float(torch.quantile(torch.cat(between), 0.01))


def _to_nearest(rows: Tensor, real: Tensor, distances: Tensor) -> Tensor:
    """Products of matrices find the nearest fast but round; its distance is then exact, 0 for an equal row."""
    assert rows.dtype == torch.float64, rows.dtype
    exact: Tensor = torch.linalg.vector_norm(rows - real[distances.argmin(dim=1)], dim=1)
    return exact
