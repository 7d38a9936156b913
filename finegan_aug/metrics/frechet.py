"""Fréchet distance between Gaussians fitted to features (FID).

Heusel et al., NIPS 2017, https://arxiv.org/abs/1706.08500, equation 6:
|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).
"""

from __future__ import annotations

import numpy as np

from finegan_aug.metrics.arrays import Array, Floats, feature_pair


def fid(*, real: Array, fake: Array) -> float:
    """Fréchet distance between the features of real and generated images, at least 0.

    With centred features A [n, D], B [m, D] and covariances A^T A / (n - 1), B^T B / (m - 1), the trace of the
    square root is the sum of the singular values of A B^T / sqrt((n - 1)(m - 1)). This needs no matrix square
    root and stays exact when n < D. A set larger than D enters by the triangular factor of its QR
    decomposition, which has the same covariance, so the decomposed matrix is never larger than [D, D].
    With few images the value is biased upwards: compare only values with the same numbers of images.

    Args:
        real, fake: float [N, D], N >= 2, features from one extractor.

    Raises:
        DataError: fewer than 2 rows, different D, or values that are not finite.
    """
    real64, fake64 = feature_pair(real=real, fake=fake)
    shift = real64.mean(axis=0) - fake64.mean(axis=0)
    A, B = _factor(real64), _factor(fake64)
    cross = _nuclear_norm(A @ B.T)
    distance = shift @ shift + (A * A).sum() + (B * B).sum() - 2.0 * cross
    return max(float(distance), 0.0)  # rounding can leave a tiny negative number for equal sets


def _factor(features: Floats) -> Floats:
    """A [min(n, D), D] with A^T A = covariance of the features (divided by n - 1)."""
    centred: Floats = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    try:
        factor = np.linalg.cholesky(centred.T @ centred).T
    except np.linalg.LinAlgError:
        factor = np.asarray(np.linalg.qr(centred, mode="r"))
    return np.asarray(factor, dtype=np.float64)


def _nuclear_norm(matrix: Floats) -> float:
    """Sum of the singular values.

    The roots of the eigenvalues of the smaller product with its transpose take a third of the time of a singular value
    decomposition, but lose singular values below 1e-8 of the largest. One of these is there whenever there are fewer
    images than features, because of the mean; where more come near it, the slower way is taken.
    """
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    values = np.linalg.eigvalsh(product)
    if (values < 1e-15 * values[-1]).sum() > 1:
        return float(np.linalg.svd(matrix, compute_uv=False).sum())
    return float(np.sqrt(np.maximum(values, 0.0)).sum())
