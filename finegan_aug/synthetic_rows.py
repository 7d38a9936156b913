"""The lines of a synthetic set's manifest: what they hold, how they are written, and how they are read with suspicion.

A manifest is data from outside. Whatever a line holds, reading it gives a checked row, all of which can be written
again, or a DataError. Layout: docs/formats.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, NoReturn

from finegan_aug.data.decode import MAX_SIDE_PX
from finegan_aug.data.outside import is_storable, name_fault, path_fault, shown
from finegan_aug.errors import DataError
from finegan_aug.files import JSON

FORMAT = "finegan_aug synthetic set"
VERSION = 1
SUFFIX = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}

MAX_LINE_BYTES = 1_000_000
_WRITTEN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{,99}/[A-Za-z0-9_-][A-Za-z0-9._-]{,99}")
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Header:
    """First line of a manifest: what holds for the whole folder."""

    classes: tuple[str, ...]  # names in the order of their labels
    resolution: int | None = None  # side of the square images in pixels; None: sizes differ
    image_format: str | None = None  # png, webp or jpeg; None: formats differ
    made_with: JSON = field(default_factory=dict)  # settings that made the images, for people to read
    filter: JSON | None = None  # settings and counts of the last filtering


@dataclass(frozen=True)
class SyntheticRow:
    """One image of a synthetic set. `None` where the folder was not made by `synthesize`."""

    file: str  # posix path relative to the folder
    class_name: str
    label: int  # index in Header.classes
    image: int  # number within the class: image 17 is the same however the set was made
    child: int | None = None  # codes
    parent: int | None = None
    background: int | None = None
    seed: int | None = None
    sha256: str | None = None  # of the file's bytes
    scores: dict[str, float] = field(default_factory=dict)
    kept: bool = True
    dropped_by: str | None = None  # name of the filter, None while kept


_KEYS = tuple("class" if item.name == "class_name" else item.name for item in fields(SyntheticRow))


def row_line(row: SyntheticRow) -> bytes:
    """A row as its line of the manifest, line feed included."""
    return json_line(dict(zip(_KEYS, vars(row).values(), strict=True)))


def parse_header(line: bytes, manifest: Path) -> Header:
    """The first line of a manifest.

    Raises:
        DataError: it is not a header of this format and version, or a field has the wrong type.
    """
    content = _parse(line.removeprefix(b"\xef\xbb\xbf"), 1, manifest)  # a byte order mark left by an editor
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        found = f"{shown(content.get('format'))} version {shown(content.get('version'))}"
        refuse(manifest, 1, f"the header must say {FORMAT!r} version {VERSION}, found {found}")
    classes, resolution, form = content.get("classes"), content.get("resolution"), content.get("image_format")
    made_with, filtered = content.get("made_with", {}), content.get("filter")
    names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not names or not classes or len(set(classes)) != len(classes):
        refuse(manifest, 1, f"classes must be a list of distinct names, found {shown(classes)}")
    for name in classes:
        if (fault := name_fault(name)) is not None:
            refuse(manifest, 1, f"class name {shown(name)} {fault}")
    if resolution is not None and not (type(resolution) is int and 1 <= resolution <= MAX_SIDE_PX):
        wanted = f"resolution must be a whole number from 1 to {MAX_SIDE_PX} or null"
        refuse(manifest, 1, f"{wanted}, found {shown(resolution)}")
    if form is not None and not (isinstance(form, str) and form in SUFFIX):
        refuse(manifest, 1, f"image_format must be png, webp, jpeg or null, found {shown(form)}")
    if not isinstance(made_with, dict) or not isinstance(filtered, dict | None):
        refuse(manifest, 1, "made_with must be an object, and filter an object or null")
    if not is_storable(content):
        refuse(manifest, 1, _STORABLE)
    return Header(tuple(classes), resolution, form, made_with, filtered)


def parse_row(line: bytes, header: Header, number: int, manifest: Path) -> SyntheticRow:
    """A line of a manifest, checked.

    Args:
        line: one line, with or without its end.
        header: of the same manifest.
        number: of the line, counted from 1, for the message.
        manifest: for the message.

    Raises:
        DataError: says what the line must hold and what was found.
    """
    content = _parse(line, number, manifest)
    if content.keys() != set(_KEYS):
        refuse(manifest, number, f"the keys must be {', '.join(_KEYS)}, found {shown(list(content))}")
    for key, (allowed, words) in _TYPES.items():
        value = content[key]
        if type(value) not in allowed or (type(value) is int and not -_TOO_LARGE <= value < _TOO_LARGE):
            refuse(manifest, number, f"{key} must be {words}, found {shown(value)}")
    row = SyntheticRow(class_name=content.pop("class"), **content)
    if not 0 <= row.label < len(header.classes) or header.classes[row.label] != row.class_name:
        place = f"the place of class {shown(row.class_name)} in the header"
        refuse(manifest, number, f"label {row.label} must be {place}")
    if not is_written_path(row.file) and (fault := path_fault(row.file)):
        refuse(manifest, number, f"file {shown(row.file)} {fault}")
    if row.image < 0:
        refuse(manifest, number, f"image must not be negative, found {row.image}")
    if row.sha256 is not None and not _HEX64.fullmatch(row.sha256):
        refuse(manifest, number, f"sha256 must be 64 hexadecimal digits or null, found {shown(row.sha256)}")
    if not all(type(score) in (int, float) and abs(score) <= sys.float_info.max for score in row.scores.values()):
        refuse(manifest, number, f"scores must be finite numbers, found {shown(row.scores)}")
    if row.kept != (row.dropped_by is None):
        refuse(manifest, number, f"dropped_by must be null exactly when kept is true, found {shown(row.dropped_by)}")
    if b"\\u" in line and not is_storable(content):  # half a character can only come from an escape
        refuse(manifest, number, _STORABLE)
    return row


def is_written_path(file: str) -> bool:
    """Whether a path looks as `file_name` writes it, or nearly: such a path needs no further check."""
    return _WRITTEN.fullmatch(file) is not None and ".." not in file


def manifest_lines(stream: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 2, bytes before it, line) of what follows the header; an overlong line comes cut off."""
    number, start = 2, stream.tell()
    while line := stream.readline(MAX_LINE_BYTES):
        if line.strip():
            yield number, start, line
        number, start = number + 1, start + len(line)


_TOO_LARGE = 2**63  # for the index, whose columns are int64
_STORABLE = "the line must hold text in UTF-8 and finite numbers, at most 32 levels deep"
_TEXT, _WHOLE = ((str,), "text"), ((int,), "a whole number of at most 63 bits")
_MAYBE: tuple[tuple[type, ...], str] = ((int, type(None)), f"{_WHOLE[1]} or null")
_MAYBE_TEXT: tuple[tuple[type, ...], str] = ((str, type(None)), "text or null")
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "file": _TEXT,
    "class": _TEXT,
    "label": _WHOLE,
    "image": _WHOLE,
    "child": _MAYBE,
    "parent": _MAYBE,
    "background": _MAYBE,
    "seed": _MAYBE,
    "sha256": _MAYBE_TEXT,
    "scores": ((dict,), "an object"),
    "kept": ((bool,), "true or false"),
    "dropped_by": _MAYBE_TEXT,
}


def json_line(content: JSON) -> bytes:
    """A line of the manifest, line feed included."""
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes, number: int, manifest: Path) -> JSON:
    try:
        content = json.loads(line.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        refuse(manifest, number, f"the line must be a JSON object of at most 1 MB in UTF-8: {error}")
    if not isinstance(content, dict):
        refuse(manifest, number, f"the line must be a JSON object, found {type(content).__name__}")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def refuse(manifest: Path, number: int, cause: str) -> NoReturn:
    """Raise the DataError that names manifest and line."""
    raise DataError(f"{manifest} line {number}: {cause}", "correct the line or make the set anew")
