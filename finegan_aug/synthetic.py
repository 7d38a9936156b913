"""The folder of synthetic images: class folders, `manifest.jsonl`, and `index.npy` for opening it fast.

The manifest is the truth; the index repeats what a loader needs of it (where each line lies, label, kept) as one
memory-mapped int64 table and is made anew whenever it does not fit the manifest. Layout: docs/formats.md.
"""

from __future__ import annotations

import io
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from finegan_aug.arrays import write_array
from finegan_aug.data.decode import SUFFIXES
from finegan_aug.data.outside import path_fault, shown
from finegan_aug.errors import DataError, StorageError
from finegan_aug.files import write_bytes
from finegan_aug.synthetic_rows import (
    FORMAT,
    MAX_LINE_BYTES,
    SUFFIX,
    VERSION,
    Header,
    SyntheticRow,
    json_line,
    manifest_lines,
    parse_header,
    parse_row,
    refuse,
    row_line,
)

__all__ = ["Header", "SyntheticRow", "encode", "file_name", "read_rows", "write_manifest"]

MANIFEST = "manifest.jsonl"
INDEX = "index.npy"

Table = npt.NDArray[np.int64]

# No dot in front, which hides a folder, and no dash, which a command takes for an option.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{,99}")
# Device names of Windows, and our own numbered folders, which a class called class_0007 must not meet.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|class_[0-9]{4,}", re.IGNORECASE)


def class_folder(name: str, label: int) -> str:
    """Folder of a class: its name if that is a plain path component on every system, else `class_0007`."""
    plain = _PLAIN.fullmatch(name) and not name.endswith(".") and not _RESERVED.fullmatch(name)
    return name if plain else f"class_{label:04d}"


def file_name(name: str, label: int, image: int, image_format: str) -> str:
    """Path of image number `image` of a class inside the folder: `roses/00000017.png`."""
    return f"{class_folder(name, label)}/{image:08d}{SUFFIX[image_format]}"


def encode(image: npt.NDArray[np.uint8], image_format: str = "png", quality: int | None = None) -> bytes:
    """A file's bytes for one image; the same pixels give the same bytes.

    Args:
        image: uint8 [H, W, 3].
        image_format: png, webp or jpeg.
        quality: 1 to 100 for jpeg (default 95) and webp (default: lossless); png has none.
    """
    assert image.dtype == np.uint8, image.dtype
    assert image.shape[2:] == (3,), image.shape
    if image_format not in SUFFIX:
        raise DataError(f"the image format must be png, webp or jpeg, found {image_format!r}", "name one of the three")
    stream = io.BytesIO()
    best = 95 if image_format == "jpeg" else 100  # each format ignores the others' options
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(stream, image_format, quality=quality or best, lossless=quality is None, subsampling=0)
    return stream.getvalue()


def write_images(
    out_dir: Path, classes: Sequence[str], pixels: Iterable[npt.NDArray[np.uint8]], labels: Iterable[int]
) -> list[SyntheticRow]:
    """Write images that nobody drew from codes as PNG, each numbered within its class; returns their rows.

    Args:
        pixels: uint8 [H, W, 3] each.
        labels: one for each image, in the order of `classes`.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    counts, rows = [0] * len(classes), list[SyntheticRow]()
    for image, label in zip(pixels, labels, strict=True):
        file = file_name(classes[label], label, counts[label], "png")
        write_bytes(out_dir / file, encode(image))
        rows.append(SyntheticRow(file, classes[label], label, counts[label]))
        counts[label] += 1
    return rows


def write_manifest(out_dir: Path, header: Header, rows: Iterable[SyntheticRow]) -> None:
    """Write manifest and index; a reader sees the old or the new set, never a mixture.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    target, temporary = out_dir / MANIFEST, out_dir / f".{MANIFEST}.{os.getpid()}.tmp"
    first = {"format": FORMAT, "version": VERSION, **vars(header)}
    table = array("q")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            end = stream.write(json_line(first))
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
    stream = open_manifest(manifest)
    if stream is None:
        return list_folder(out_dir)
    with stream:
        header = parse_header(stream.readline(MAX_LINE_BYTES), manifest)
        rows: dict[str, SyntheticRow] = {}
        for number, _, line in manifest_lines(stream):
            row = parse_row(line, header, number, manifest)
            if row.file in rows:
                refuse(manifest, number, f"file {row.file!r} appears twice")
            rows[row.file] = row
    return header, list(rows.values())


def open_manifest(manifest: Path) -> IO[bytes] | None:
    """The manifest of a set for reading, or None where there is none.

    Raises:
        DataError: it cannot be opened, or is a folder, or a pipe that would be waited for.
    """
    if not manifest.exists():
        return None
    if not manifest.is_file():
        raise DataError(f"{manifest} must be a file", "remove it or name another folder")
    try:
        return open(manifest, "rb")
    except OSError as error:
        raise DataError(f"cannot read {manifest}: {error.strerror}", "make the file readable") from error


def list_folder(root: Path) -> tuple[Header, list[SyntheticRow]]:
    """Header and rows of a folder with one sub-folder per class and no manifest; hidden names are skipped.

    Raises:
        DataError: there is no folder, no class folder or no image, or a name that no manifest could hold.
    """
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".") if root.is_dir() else []
    rows = []
    for label, name in enumerate(folders):
        files = sorted(path for path in _walk(root / name) if path.suffix.lower() in SUFFIXES)
        rows += [SyntheticRow(path.relative_to(root).as_posix(), name, label, n) for n, path in enumerate(files)]
    for row in rows:
        if (fault := path_fault(row.file)) is not None:
            raise DataError(f"{root}: {shown(row.file)} {fault}", "rename the file")
    if not rows:
        raise DataError(
            f"{root} must hold a manifest or class folders with images, found none",
            "write it with `finegan-aug synthesize`, or name another folder",
        )
    return Header(tuple(folders)), rows


def write_index(out_dir: Path, table: Table) -> None:
    """Write the int64 table [N, 5] that belongs to the manifest beside it."""
    write_array(out_dir / INDEX, table)


def _walk(folder: Path) -> Iterator[Path]:
    """All visible files below a folder; links to folders are not followed."""
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in files if not name.startswith("."))
