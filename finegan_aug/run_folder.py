"""What a run folder promises: one process at a time, one configuration, and a status that is never half written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from finegan_aug.errors import CheckpointError, DataError, RunLockedError, StorageError
from finegan_aug.files import JSON, read_json, write_json

# As write_bytes, and saving and pruning a checkpoint, name them.
_UNFINISHED_FILE = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)
_UNFINISHED_FOLDER = re.compile(r"\.tmp-\d+-\d+-[0-9a-f]+|\.trash-step-\d+-[0-9a-f]+")

if TYPE_CHECKING:
    from accelerate import PartialState


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the folder for this process alone, and remove what killed processes left half written.

    The lock is the operating system's, so that it ends with its process; LOCK beside it says who holds it.

    Raises:
        RunLockedError: another process holds it; at once, naming its pid.
        StorageError: the folder cannot be written.
    """
    if "\0" in str(run_dir):
        raise StorageError(f"cannot lock {str(run_dir)!r}: a path must not hold NUL", "choose another --out")
    note = run_dir / "LOCK"
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        holder = _holder(note)
        raise RunLockedError(
            f"{run_dir} is in use by process {holder.get('pid', '?')} on {holder.get('host', '?')} "
            f"since {holder.get('started', '?')}",
            "wait for it, stop it, or choose another --out",
        ) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"cannot lock {run_dir}: {reason}", "choose an --out that can be written") from error
    try:
        if note.exists():
            holder = _holder(note)
            if "pid" not in holder:
                raise StorageError(f"{note} must be the note of a run, found another file", "choose another --out")
            warnings.warn(f"{run_dir}: process {holder['pid']} was killed; going on", stacklevel=3)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(note, {"pid": os.getpid(), "host": socket.gethostname(), "started": started})
        _remove_unfinished(run_dir)
        yield
    finally:
        with contextlib.suppress(OSError):  # a disk that nothing can be written to any more; what ends the run says so
            if _holder(note).get("pid") == os.getpid():
                note.unlink()
        lock.release()


@contextmanager
def held_together(folder: Path, state: PartialState) -> Iterator[None]:
    """The first of the processes that were launched together holds the folder for all; none goes on before it does.

    Raises:
        RunLockedError, StorageError: as of `run_lock`.
    """
    with run_lock(folder) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        yield


def is_held(run_dir: Path) -> bool:
    """Whether a process works in the folder at this moment."""
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError, NotImplementedError):
        return True
    lock.release()
    return False


def _remove_unfinished(run_dir: Path) -> None:
    """Remove what killed processes left half written here: nothing but what bears the names that we give such files."""
    checkpoints = run_dir / "checkpoints"
    for left in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if _UNFINISHED_FOLDER.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)
    for left in run_dir.rglob(".*.tmp"):
        if _UNFINISHED_FILE.fullmatch(left.name) and left.is_file():
            with contextlib.suppress(OSError):
                left.unlink()


def _holder(note: Path) -> JSON:
    try:
        return read_json(note)
    except DataError:
        return {}  # between the lock and its note


def write_status(run_dir: Path, state: str, exit_code: int | None, seen_images: int, message: str = "") -> None:
    """Rewrite `status.json`; `exit_code` is None while the run goes on."""
    status = {"state": state, "exit_code": exit_code, "seen_images": seen_images, "message": message}
    write_json(run_dir / "status.json", status)


def ensure_same_config(
    old: JSON,
    new: JSON,
    free: Collection[str],
    defaults: JSON | None = None,
    remedy: str = "use --overwrite or another --out",
) -> None:
    """Refuse to go on with another configuration.

    Args:
        old, new: nested JSON; keys are compared as "data.split", tuples as lists.
        free: keys that may differ; a free key covers everything below it.
        defaults: nested like `old`; what a key stands for that `old` lacks: options of later versions do nothing by
            default.
        remedy: of the error.

    Raises:
        CheckpointError: lists every difference.
    """
    before, after, assumed = (_flat(json.loads(json.dumps(content))) for content in (old, new, defaults or {}))
    before = assumed | before
    difference = [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in sorted(before.keys() | after.keys())
        if (key in before, before.get(key)) != (key in after, after.get(key)) and not _covered(key, free)
    ]
    if difference:
        raise CheckpointError(f"the run folder belongs to another configuration ({'; '.join(difference)})", remedy)


def _flat(content: JSON, prefix: str = "") -> JSON:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: JSON = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(flat: JSON, key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "absent"


def _covered(key: str, free: Collection[str]) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:n]) in free for n in range(1, len(parts) + 1))
