"""Agreement of clusters with classes: accuracy after the best match, mutual information, Rand index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from finegan_aug.errors import DataError

Names = Sequence[Any] | npt.NDArray[Any] | Tensor
Average = Literal["geometric", "arithmetic", "max"]


def clustering_accuracy(*, labels: Names, clusters: Names) -> float:
    """Share of images whose cluster is matched to their class by the best one-to-one match, in [0, 1].

    The match is found by the Hungarian algorithm. With more clusters than classes the clusters left over
    count as wrong, and the same for classes.

    Args:
        labels, clusters: [N], integers or strings.

    Raises:
        DataError: empty, or of different lengths.
    """
    table = contingency(labels=labels, clusters=clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


def nmi(*, labels: Names, clusters: Names, average: Average = "geometric") -> float:
    """Mutual information of classes and clusters divided by a mean of their entropies, in [0, 1].

    Args:
        labels, clusters: [N], integers or strings.
        average: the mean in the denominator. Published FineGAN tables use `geometric`, C3-GAN's `max`;
            scikit-learn's default is `arithmetic`: three different numbers.

    Raises:
        DataError: empty, of different lengths, or an unknown average.
    """
    if average not in ("geometric", "arithmetic", "max"):
        raise DataError(f"average must be geometric, arithmetic or max, found {average!r}", "choose one of the three")
    truth, found = _coded(labels, clusters)
    return float(normalized_mutual_info_score(truth, found, average_method=average))


def ari(*, labels: Names, clusters: Names) -> float:
    """Rand index corrected for chance (Hubert and Arabie, 1985): 1 for equal partitions, near 0 for random ones.

    Raises:
        DataError: empty, or of different lengths.
    """
    return float(adjusted_rand_score(*_coded(labels, clusters)))


def contingency(*, labels: Names, clusters: Names) -> npt.NDArray[np.int64]:
    """Counts [classes, clusters], both in sorted order of their names."""
    truth, found = _coded(labels, clusters)
    table = np.zeros((truth.max() + 1, found.max() + 1), dtype=np.int64)
    np.add.at(table, (truth, found), 1)
    return table


def _coded(labels: Names, clusters: Names) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    truth, found = (np.asarray(x).reshape(-1) for x in (labels, clusters))
    if len(truth) != len(found) or len(truth) == 0:
        raise DataError(
            f"labels and clusters must have the same length above 0, found {len(truth)} and {len(found)}",
            "pass one label and one cluster for each image",
        )
    return np.unique(truth, return_inverse=True)[1], np.unique(found, return_inverse=True)[1]
