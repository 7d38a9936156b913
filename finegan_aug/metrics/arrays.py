"""Checked entry of feature arrays: every measure computes in float64 on finite [N, D] arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from finegan_aug.errors import DataError

Array = npt.NDArray[Any] | Tensor
Floats = npt.NDArray[np.float64]


def features64(values: Array, *, name: str, at_least: int = 2) -> Floats:
    """A copy of `values` as float64 [N, D].

    Raises:
        DataError: not two-dimensional, fewer than `at_least` rows, or not finite.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{name} must be an array [N, D], found shape {list(array.shape)}", "pass one row per image")
    if len(array) < at_least:
        raise DataError(f"{name} must hold at least {at_least} rows, found {len(array)}", "use more images")
    result: Floats = array.astype(np.float64)
    if not np.isfinite(result).all():
        rows = int((~np.isfinite(result)).any(axis=1).sum())
        raise DataError(f"{name} must be finite, found {rows} rows that are not", "check the feature extractor")
    return result


def feature_pair(*, real: Array, fake: Array, at_least: int = 2) -> tuple[Floats, Floats]:
    """Both arrays as float64 with the same number of columns.

    Raises:
        DataError: as in `features64`, or the two have different numbers of columns.
    """
    real64 = features64(real, name="real", at_least=at_least)
    fake64 = features64(fake, name="fake", at_least=at_least)
    if real64.shape[1] != fake64.shape[1]:
        raise DataError(
            f"real and fake must have equally many features, found {real64.shape[1]} and {fake64.shape[1]}",
            "use one feature extractor for both",
        )
    return real64, fake64
