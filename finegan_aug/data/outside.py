"""What may stand in a file that somebody else wrote: names, relative paths, JSON that can be written again."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable

MAX_CHARACTERS = 1024
MAX_LEVELS = 32  # of lists and objects inside one another
_DRIVE = re.compile(r"^[A-Za-z]:")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def name_fault(name: str) -> str | None:
    """Why the name of a class or file is refused, or None: it must be printable on one line, in UTF-8."""
    if not name or len(name) > MAX_CHARACTERS:
        return f"must have 1 to {MAX_CHARACTERS} characters, found {len(name)}"
    if name.isascii() and name.isprintable():
        return None  # a quick look that is enough for most
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDI for c in name):
        return "must not hold control characters, line breaks or marks of writing direction"
    return None


def path_fault(path: str) -> str | None:
    """Why a stored path is refused, or None: it must stay below its folder and be printable on one line."""
    if (fault := name_fault(path)) is not None:
        return fault
    if "\\" in path or "://" in path or path.startswith(("/", "~")) or _DRIVE.match(path):
        return "must be relative, with / between folders"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "must not hold empty parts, . or .."
    return None


def followed(path: str, real_folder: Callable[[str], str]) -> str:
    """Where a file lies, links followed; `real_folder` is `os.path.realpath` with a memory, for there are few folders.

    One look at the file itself, against one for each part of its path.
    """
    folder, name = os.path.split(path)
    real = os.path.join(real_folder(folder), name)
    return os.path.realpath(real) if os.path.islink(real) else real


def printable(text: str) -> str:
    """The text with control characters and stray bytes written as escapes, for terminals and logs."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def is_storable(content: object) -> bool:
    """Whether what JSON gave can be written again: text in UTF-8, finite numbers, at most 32 levels.

    `json.loads` also gives NaN, infinity (of 1e999) and halves of characters (of "\\ud800"), and a depth that no
    later step may be able to walk.
    """
    if not _is_shallow(content, MAX_LEVELS):
        return False
    try:
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def shown(value: object) -> str:
    """A value from outside as it may stand in a message: one line of at most 80 characters."""
    try:
        return repr(value)[:80]
    except (RecursionError, ValueError):  # lists too deep to walk, a number too long to write
        return f"{type(value).__name__} too large to show"


def _is_shallow(content: object, levels: int) -> bool:
    if not isinstance(content, dict | list | tuple):
        return True
    items = content.values() if isinstance(content, dict) else content
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in items)
