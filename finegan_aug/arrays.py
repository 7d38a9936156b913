"""NumPy files without pickle: written at once, and read with suspicion."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finegan_aug.errors import DataError
from finegan_aug.files import write_bytes

Shares = npt.NDArray[np.float32]


def write_array(path: Path, values: npt.NDArray[Any]) -> None:
    """Write an array, so that a reader sees the old or the new file.

    Raises:
        StorageError: see `files.write_bytes`.
    """
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    write_bytes(path, stream.getvalue())


def read_shares(path: Path, shape: tuple[int, int], used: npt.NDArray[np.bool_], remedy: str) -> Shares:
    """Shares of the classes, float32 [N, C], memory-mapped.

    Args:
        used: bool [N], the rows that are looked at, which must add up to 1; the others may hold anything.
        remedy: what to do where there is no such file.

    Raises:
        DataError: there is none, or another.
    """
    if not path.is_file():
        raise DataError(f"{path.parent} must hold {path.name}, the answers of a teacher, found none", remedy)
    try:
        shares: Shares = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except Exception as error:  # numpy raises nearly anything on a damaged file
        raise DataError(f"{path} must be a NumPy file of numbers, found another", remedy) from error
    if shares.dtype != np.float32 or shares.shape != shape:
        found = f"{shares.dtype} {list(shares.shape)}"
        raise DataError(f"{path} must hold float32 {list(shape)}, found {found}", remedy)
    rows = shares[used]
    wrong = ~((rows >= 0).all(axis=1) & (abs(rows.sum(axis=1, dtype=np.float64) - 1) < 1e-3))
    if wrong.any():
        raise DataError(f"{path} must hold shares that add up to 1, found {wrong.sum()} rows that do not", remedy)
    return shares
