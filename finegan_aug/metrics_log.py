"""metrics.jsonl: one JSON object a line, each step once whatever happened in between."""

from __future__ import annotations

import json
import os
from pathlib import Path

from finegan_aug.errors import StorageError


class MetricsLog:
    """Appends lines; a resumed run first cuts what came after its checkpoint.

    Args:
        path: the file; created on the first line.
        length_bytes: what to keep of an earlier run.
    """

    def __init__(self, path: Path, length_bytes: int = 0) -> None:
        self.path = path
        if path.exists():
            os.truncate(path, min(length_bytes, path.stat().st_size))

    def append(self, row: dict[str, float | int]) -> None:
        """Writes one line.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}", "free space, then run again") from error

    def length_bytes(self) -> int:
        """Length on disk, for the checkpoint."""
        if not self.path.exists():
            return 0
        with open(self.path, "rb") as stream:
            os.fsync(stream.fileno())
            return os.fstat(stream.fileno()).st_size
