"""metrics.jsonl: one JSON object a line, each step once whatever happened in between."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
from pathlib import Path

from finegan_aug.errors import StorageError


class MetricsLog:
    """Appends lines; a resumed run first cuts what came after its checkpoint.

    Lines that the disk does not take wait in memory for the next one that it takes.

    Args:
        path: the file; created on the first line.
        length_bytes: what to keep of an earlier run.

    Raises:
        StorageError: the file cannot be cut.
    """

    def __init__(self, path: Path, length_bytes: int = 0) -> None:
        self.path, self._waiting, self._warned = path, b"", False
        try:
            if path.exists():
                os.truncate(path, min(length_bytes, path.stat().st_size))
        except OSError as error:
            raise self._error(error) from error

    def append(self, row: dict[str, float | int]) -> None:
        """Writes one line, or keeps it; the first that cannot be written is told in a warning."""
        self._waiting += (json.dumps(row, allow_nan=False) + "\n").encode()
        try:
            self._write()
            self._warned = False
        except OSError as error:
            if not self._warned:
                warnings.warn(f"{self._error(error).cause}; its lines wait in memory", RuntimeWarning, stacklevel=2)
            self._warned = True

    def length_bytes(self) -> int:
        """Length on disk, for the checkpoint.

        Raises:
            StorageError: some line is not on disk.
        """
        try:
            self._write()
            if not self.path.exists():
                return 0
            with open(self.path, "rb") as stream:
                os.fsync(stream.fileno())
                return os.fstat(stream.fileno()).st_size
        except OSError as error:
            raise self._error(error) from error

    def _write(self) -> None:
        """All waiting lines or none of them."""
        if not self._waiting:
            return
        with open(self.path, "ab", buffering=0) as stream:
            before = os.fstat(stream.fileno()).st_size
            try:
                if stream.write(self._waiting) != len(self._waiting):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with contextlib.suppress(OSError):
                    stream.truncate(before)
                raise
        self._waiting = b""

    def _error(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self.path}: {error.strerror}", "free space or allow writing, then run again"
        )
