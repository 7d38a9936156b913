"""The folder of synthetic images: class folders, `manifest.jsonl`, and `index.npy` for opening it fast.

The manifest is the truth; the index repeats what a loader needs of it (where each line lies, label, kept) as one
memory-mapped int64 table and is made anew whenever it does not fit the manifest. Layout: docs/formats.md.
"""

from __future__ import annotations

import io
import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from finegan_aug.data.decode import SUFFIXES
from finegan_aug.data.manifest import path_fault
from finegan_aug.errors import DataError, StorageError
from finegan_aug.files import JSON, write_bytes

MANIFEST = "manifest.jsonl"
INDEX = "index.npy"
FORMAT = "finegan_aug synthetic set"
VERSION = 1

Table = npt.NDArray[np.int64]

_SUFFIX = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
_MAX_LINE_BYTES = 1_000_000
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,100}")
# Device names of Windows, and our own numbered folders, which a class called class_0007 must not meet.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|class_[0-9]{4,}", re.IGNORECASE)
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


def class_folder(name: str, label: int) -> str:
    """Folder of a class: its name if that is a plain path component on every system, else `class_0007`."""
    plain = _PLAIN.fullmatch(name) and not name.endswith(".") and not _RESERVED.fullmatch(name)
    return name if plain else f"class_{label:04d}"


def file_name(name: str, label: int, image: int, image_format: str) -> str:
    """Path of image number `image` of a class inside the folder: `roses/00000017.png`."""
    return f"{class_folder(name, label)}/{image:08d}{_SUFFIX[image_format]}"


def encode(image: npt.NDArray[np.uint8], image_format: str = "png", quality: int | None = None) -> bytes:
    """A file's bytes for one image; the same pixels give the same bytes.

    Args:
        image: uint8 [H, W, 3].
        image_format: png, webp or jpeg.
        quality: 1 to 100 for jpeg (default 95) and webp (default: lossless); png has none.
    """
    assert image.dtype == np.uint8, image.dtype
    assert image.shape[2:] == (3,), image.shape
    if image_format not in _SUFFIX:
        raise DataError(f"the image format must be png, webp or jpeg, found {image_format!r}", "name one of the three")
    stream = io.BytesIO()
    best = 95 if image_format == "jpeg" else 100  # each format ignores the others' options
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(stream, image_format, quality=quality or best, lossless=quality is None, subsampling=0)
    return stream.getvalue()


def write_manifest(out_dir: Path, header: Header, rows: Iterable[SyntheticRow]) -> None:
    """Write manifest and index; a reader sees the old or the new set, never a mixture.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    target, temporary = out_dir / MANIFEST, out_dir / f".{MANIFEST}.{os.getpid()}.tmp"
    first = {"format": FORMAT, "version": VERSION, **asdict(header)}
    table = array("q")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            end = stream.write(_json_line(first))
            for row in rows:
                start, end = end, end + stream.write(row_line(row))
                table.extend((start, end, row.label, row.image, row.kept))
            stream.flush()
            os.fsync(stream.fileno())
        (out_dir / INDEX).unlink(missing_ok=True)  # between the two renames there is no index rather than a wrong one
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {target}: {error.strerror}", "free space or choose another --out") from error
    write_index(out_dir, np.array(table, dtype=np.int64).reshape(-1, 5))


def read_rows(out_dir: Path) -> tuple[Header, list[SyntheticRow]]:
    """Header and all rows, each checked; a class folder tree without a manifest is listed instead.

    Raises:
        DataError: names the line of the manifest that is wrong.
    """
    manifest = out_dir / MANIFEST
    if not manifest.exists():
        return list_folder(out_dir)
    with open(manifest, "rb") as stream:
        header = parse_header(stream.readline(_MAX_LINE_BYTES), manifest)
        rows: dict[str, SyntheticRow] = {}
        for number, _, line in manifest_lines(stream):
            row = parse_row(line, header, number, manifest)
            if row.file in rows:
                _refuse(manifest, number, f"file {row.file!r} appears twice")
            rows[row.file] = row
    return header, list(rows.values())


def list_folder(root: Path) -> tuple[Header, list[SyntheticRow]]:
    """Header and rows of a folder with one sub-folder per class and no manifest; hidden names are skipped.

    Raises:
        DataError: there is no folder, no class folder or no image.
    """
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".") if root.is_dir() else []
    rows = []
    for label, name in enumerate(folders):
        files = sorted(path for path in _walk(root / name) if path.suffix.lower() in SUFFIXES)
        rows += [SyntheticRow(path.relative_to(root).as_posix(), name, label, n) for n, path in enumerate(files)]
    if not rows:
        raise DataError(
            f"{root} must hold a manifest or class folders with images, found none",
            "write it with `finegan-aug synthesize`, or name another folder",
        )
    return Header(tuple(folders)), rows


def row_line(row: SyntheticRow) -> bytes:
    """A row as its line of the manifest, line feed included."""
    return _json_line(dict(zip(_KEYS, vars(row).values(), strict=True)))


def parse_header(line: bytes, manifest: Path) -> Header:
    """The first line of a manifest.

    Raises:
        DataError: it is not a header of this format and version, or a field has the wrong type.
    """
    content = _parse(line.removeprefix(b"\xef\xbb\xbf"), 1, manifest)  # a byte order mark left by an editor
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        found = f"{content.get('format')!r} version {content.get('version')!r}"
        _refuse(manifest, 1, f"the header must say {FORMAT!r} version {VERSION}, found {found}")
    classes, resolution, form = content.get("classes"), content.get("resolution"), content.get("image_format")
    made_with, filtered = content.get("made_with", {}), content.get("filter")
    names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not names or not classes or len(set(classes)) != len(classes):
        _refuse(manifest, 1, f"classes must be a list of distinct names, found {classes!r}")
    if resolution is not None and (type(resolution) is not int or resolution < 1):
        _refuse(manifest, 1, f"resolution must be a positive whole number or null, found {resolution!r}")
    if form is not None and form not in _SUFFIX:
        _refuse(manifest, 1, f"image_format must be png, webp, jpeg or null, found {form!r}")
    if not isinstance(made_with, dict) or not isinstance(filtered, dict | None):
        _refuse(manifest, 1, "made_with must be an object, and filter an object or null")
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
        _refuse(manifest, number, f"the keys must be {', '.join(_KEYS)}, found {', '.join(map(str, content))}")
    for key, (allowed, words) in _TYPES.items():
        if type(content[key]) not in allowed:
            _refuse(manifest, number, f"{key} must be {words}, found {content[key]!r}")
    row = SyntheticRow(class_name=content.pop("class"), **content)
    if not 0 <= row.label < len(header.classes) or header.classes[row.label] != row.class_name:
        _refuse(manifest, number, f"label {row.label} must be the place of class {row.class_name!r} in the header")
    if not is_written_path(row.file) and (fault := path_fault(row.file)):
        _refuse(manifest, number, f"file {row.file[:80]!r} {fault}")
    if row.image < 0:
        _refuse(manifest, number, f"image must not be negative, found {row.image}")
    if row.sha256 is not None and not _HEX64.fullmatch(row.sha256):
        _refuse(manifest, number, f"sha256 must be 64 hexadecimal digits or null, found {row.sha256!r}")
    if any(type(score) not in (int, float) for score in row.scores.values()):
        _refuse(manifest, number, f"scores must be numbers, found {row.scores!r}")
    if row.kept != (row.dropped_by is None):
        _refuse(manifest, number, f"dropped_by must be null exactly when kept is true, found {row.dropped_by!r}")
    return row


def is_written_path(file: str) -> bool:
    """Whether a path looks as `file_name` writes it, or nearly: such a path needs no further check."""
    return _WRITTEN.fullmatch(file) is not None and ".." not in file


def write_index(out_dir: Path, table: Table) -> None:
    """Write the int64 table [N, 5] that belongs to the manifest beside it."""
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=False)
    write_bytes(out_dir / INDEX, stream.getvalue())


def manifest_lines(stream: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 2, bytes before it, line) of what follows the header; an overlong line comes cut off."""
    number, start = 2, stream.tell()
    while line := stream.readline(_MAX_LINE_BYTES):
        if line.strip():
            yield number, start, line
        number, start = number + 1, start + len(line)


_TEXT, _WHOLE, _MAYBE = ((str,), "text"), ((int,), "a whole number"), ((int, type(None)), "a whole number or null")
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


def _json_line(content: JSON) -> bytes:
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes, number: int, manifest: Path) -> JSON:
    try:
        content = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(manifest, number, f"the line must be a JSON object of at most 1 MB: {error}")
    if not isinstance(content, dict):
        _refuse(manifest, number, f"the line must be a JSON object, found {type(content).__name__}")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(manifest: Path, number: int, cause: str) -> NoReturn:
    raise DataError(f"{manifest} line {number}: {cause}", "correct the line or make the set anew")


def _walk(folder: Path) -> Iterator[Path]:
    """All visible files below a folder; links to folders are not followed."""
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in files if not name.startswith("."))
