"""Fréchet distance between Gaussians fitted to features (FID).

Heusel et al., NIPS 2017, https://arxiv.org/abs/1706.08500, equation 6:
|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg.lapack import dsygst

from finegan_aug.errors import DataError
from finegan_aug.metrics.arrays import Array, Floats, features64

_RELATIVE_ERROR = 1e-6  # of the distance, beyond which singular values are taken instead of eigenvalues


class Gaussian(NamedTuple):
    """The Gaussian of one set of features, in the form that makes distances from it cheap."""

    mean: Floats  # [D]
    factor: Floats  # [min(N, D), D]; factor^T factor = covariance; centred rows where N < D, else upper triangular


def gaussian(features: Array, *, name: str = "features") -> Gaussian:
    """Mean and covariance (divided by N - 1) of features, float [N, D], N >= 2.

    Raises:
        DataError: fewer than 2 rows, or values that are not finite.
    """
    mean, centred = _centred(features64(features, name=name))
    return Gaussian(mean, _factor(centred))


def fid(*, real: Array | Gaussian, fake: Array) -> float:
    """Fréchet distance between the features of real and generated images, at least 0.

    With few images the value is biased upwards: compare only values with the same numbers of images.

    Args:
        real: float [N, D], N >= 2, or what `gaussian` gives for it: the value is the same bit for bit.
        fake: float [M, D], M >= 2, features from the same extractor.

    Raises:
        DataError: fewer than 2 rows, different D, or values that are not finite.
    """
    known = real if isinstance(real, Gaussian) else gaussian(real, name="real")
    mean, centred = _centred(features64(fake, name="fake"))
    if len(known.mean) != len(mean):
        raise DataError(
            f"real and fake must have equally many features, found {len(known.mean)} and {len(mean)}",
            "use one feature extractor for both",
        )
    shift = known.mean - mean
    apart = shift @ shift + np.vdot(known.factor, known.factor) + np.vdot(centred, centred)
    trace, doubt = root_trace(known.factor, centred)
    if 2.0 * doubt > _RELATIVE_ERROR * (apart - 2.0 * trace):
        trace = np.linalg.svd(known.factor @ _factor(centred).T, compute_uv=False).sum()
    return max(float(apart - 2.0 * trace), 0.0)  # rounding can leave a tiny negative number for equal sets


def root_trace(factor: Floats, centred: Floats, covariance: Floats | None = None) -> tuple[float, float]:
    """tr (S1 S2)^(1/2), the sum of the singular values of F B^T where S1 = F^T F and S2 = B^T B.

    No matrix square root, and none is needed where the covariances are singular. The singular values are the roots of
    the eigenvalues of F S2 F^T or, where B has fewer rows than columns, of the smaller product of F B^T with its
    transpose: a sixth of the time of a singular value decomposition, but those below 1e-8 of the largest drown.

    Args:
        factor: F, float64 [R, D], R <= D, as in `Gaussian`.
        centred: B, float64 [M, D], rows that sum to 0.
        covariance: S2, float64 [D, D], if it is known already; used where M >= D.

    Returns:
        The trace, and how far off it may be: by as much as if each eigenvalue were off by rounding of the largest.
    """
    rows, width = factor.shape
    if len(centred) >= width:
        covariance = centred.T @ centred if covariance is None else covariance
        if rows == width:
            # Knows of the triangle and the symmetry: half the work of two products. Transposed because LAPACK goes by
            # columns; it fills the lower half.
            product = dsygst(covariance.T, factor.T, itype=2, lower=1)[0]
        else:
            product = factor @ covariance @ factor.T
    else:
        cross = factor @ centred.T
        product = cross @ cross.T if rows <= len(centred) else cross.T @ cross
    values = torch.linalg.eigvalsh(torch.from_numpy(product), UPLO="L").numpy()  # its LAPACK is faster than numpy's
    # Rows that sum to 0 have one dimension less than their number: what is more is 0 but for rounding.
    rank = min(len(values) - (rows < width), len(centred) - 1)
    values = values[len(values) - rank :]
    roots = np.sqrt(np.maximum(values, 0.0))
    exact = np.finfo(np.float64)
    rounding = exact.eps * roots[-1] ** 2
    doubt = rounding / np.maximum(roots, np.sqrt(rounding) + exact.tiny)  # tiny: all may be 0
    return float(roots.sum()), float(doubt.sum())


def _centred(features: Floats) -> tuple[Floats, Floats]:
    """Mean [D], and B [N, D] with B^T B = covariance; overwrites its argument, which may be gigabytes."""
    mean: Floats = features.mean(axis=0)
    features -= mean
    features /= np.sqrt(len(features) - 1)
    return mean, features


def _factor(centred: Floats) -> Floats:
    """[min(N, D), D] with the same product factor^T factor as B^T B; upper triangular where N >= D."""
    if len(centred) < centred.shape[1]:
        return centred
    try:
        factor = np.linalg.cholesky(centred.T @ centred).T
    except np.linalg.LinAlgError:
        factor = np.asarray(np.linalg.qr(centred, mode="r"))
    return np.ascontiguousarray(factor, dtype=np.float64)
