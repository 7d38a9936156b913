"""Sees every file that this process opens for writing, renames, makes or removes, by an audit hook of the interpreter.

A hook cannot be taken out again, so there is one, which looks only within `watched_writes`. What a library writes from
C or Rust alone goes unseen; compare `content_of` a folder before and after for that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Places of the paths among the arguments of an event, and of the folders that relative ones start from.
_EVENTS = {
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.utime": ((0, 3),),
}
_seen: list[Path] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is None:
        return
    if event == "open":
        path, mode, flags = arguments[:3]
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else False
        if writes or (isinstance(flags, int) and flags & _WRITING):
            _note(path, None)
    for path_at, folder_at in _EVENTS.get(event, ()):
        _note(arguments[path_at], None if folder_at is None else arguments[folder_at])


def _note(path: object, folder: object) -> None:
    if isinstance(path, int) or _seen is None:  # a file that is open already was seen when it was opened
        return
    start = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
    text = os.fsdecode(path)  # type: ignore[arg-type]
    # The folder's links are followed, the last part is what the event is about.
    whole = os.path.join(start, text)
    _seen.append(Path(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole)))


sys.addaudithook(_hook)


@contextmanager
def watched_writes() -> Iterator[list[Path]]:
    """The paths that are written within, links to folders followed. Compiled Python files are not written meanwhile."""
    global _seen
    compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _seen = seen = []
    try:
        yield seen
    finally:
        _seen = None
        sys.dont_write_bytecode = compiled


def outside(seen: list[Path], *allowed: Path) -> list[Path]:
    """Those that lie neither below one of these folders nor are one of them; /dev/null holds nothing."""
    roots = [*map(os.path.realpath, allowed), os.devnull]
    return [path for path in seen if not any(path == Path(root) or path.is_relative_to(root) for root in roots)]


def content_of(folder: Path, *without: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all below a folder, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not any(path.is_relative_to(other) for other in without):
            stat = path.lstat()
            found[str(path)] = (stat.st_size if path.is_file() else 0, stat.st_mtime_ns)
    return found
