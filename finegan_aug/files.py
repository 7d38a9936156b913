"""Small files written so that a reader never sees half of one: a temporary name, then a rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from finegan_aug.errors import DataError, StorageError

JSON = dict[str, Any]


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically, creating parent folders.

    Raises:
        StorageError: the disk is full, the folder cannot be written, or the path holds NUL.
    """
    if "\0" in str(path):
        raise StorageError(f"cannot write {str(path)!r}: a path must not hold NUL", "choose another --out")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # also a request to stop
        with contextlib.suppress(OSError):  # where the folder is a file, even this fails
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise StorageError(f"cannot write {path}: {error.strerror}", "free space or choose another --out") from error


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys; NaN and infinity are refused, floats survive exactly."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> JSON:
    """Read a JSON object.

    Raises:
        DataError: the file is missing, unreadable or not a JSON object.
    """
    refuse_pipe(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path} as JSON: {error}", "restore the file or make it anew") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object, found {type(content).__name__}", "make the file anew")
    return content


def refuse_pipe(path: Path) -> None:
    """Refuse what is neither a file nor a folder: opening a named pipe waits without end for someone to write to it.

    Raises:
        DataError: it is such a thing.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} must be a file, found a pipe, socket or device", "restore the file or make it anew")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def link_file(source: str | Path, target: str | Path) -> None:
    """Make `target`, in place of what is there, the same file as `source`; a copy where there are no links."""
    source, target = Path(source), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        write_bytes(target, source.read_bytes())
