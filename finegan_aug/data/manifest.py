"""The data manifest: which images there are, of which class, in which split, with which box and mask.

On disk: JSON lines. The first line is a header (format, version, class list, folders, notes), every other line one
image. A manifest is data from outside: each row is checked before a path is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from finegan_aug.data.decode import BACKGROUND
from finegan_aug.data.outside import followed, is_storable, name_fault, path_fault, shown
from finegan_aug.data.row_fields import FIELDS, NO_CLASS, SPLITS
from finegan_aug.errors import DataError
from finegan_aug.files import refuse_pipe, write_bytes

FORMAT = "finegan-aug-manifest"
VERSION = 1
MAX_LINE_BYTES = 2**20
Box = tuple[float, float, float, float]

_REMEDY = "scan the folder again"


@dataclass(frozen=True)
class ImageRecord:
    """One image of a data set."""

    path: str  # posix, relative to the root of its split; without a class, to the unlabelled root
    sha256: str  # of size and decoded RGB pixels
    dhash: str  # 64-bit difference hash, 16 hexadecimal digits
    width: int  # of the upright image
    height: int
    label: int  # index in Manifest.classes, or NO_CLASS: of no known class, then never `labelled`
    split: str  # "train" | "val" | "test"
    labelled: bool = True  # False: a generator may see it, but its label may not be used
    box: Box | None = None  # x1, y1, x2, y2 in pixels of the upright image
    mask: str | None = None  # posix, relative to the mask root of its split


@dataclass(frozen=True)
class Manifest:
    """A data set: folders, classes and images.

    Args:
        root: folder of the splits train and val, and of test where there is no `test_root`.
        unlabelled_root: folder of the training photographs of no known class.
        classes: sorted class names; a label is an index here.
        images: sorted by split and path.
        problems: files that were left out (quarantined), one line each.
        notes: what a person should know, one line each; nothing was changed because of it.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    test_root: Path | None = None
    mask_root: Path | None = None
    test_mask_root: Path | None = None
    unlabelled_root: Path | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def file(self, record: ImageRecord) -> Path:
        """Where the image lies."""
        if record.label == NO_CLASS and self.unlabelled_root is not None:
            return self.unlabelled_root / record.path
        if record.split == "test" and self.test_root is not None:
            return self.test_root / record.path
        return self.root / record.path

    def mask_file(self, record: ImageRecord) -> Path | None:
        """Where its mask lies, or None."""
        root = self.test_mask_root if record.split == "test" and self.test_root is not None else self.mask_root
        return None if root is None or record.mask is None else root / record.mask

    def of(self, *splits: str, labelled: bool | None = None) -> list[ImageRecord]:
        """The images of these splits, in order; `labelled` keeps only those with, or without, a usable label."""
        assert set(splits) <= set(SPLITS), splits
        return [image for image in self.images if image.split in splits and labelled in (None, image.labelled)]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of classes and images, hexadecimal; folders, problems and notes do not enter."""
        content = [list(self.classes), *map(vars, self.images)]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write JSON lines, atomically. Folders below the manifest's own are stored relative to it, others absolute.

    Raises:
        StorageError: the file cannot be written.
    """
    home = Path(os.path.realpath(path)).parent

    def stored(folder: Path | None) -> str | None:
        if folder is None:
            return None
        absolute = Path(os.path.realpath(folder))
        return absolute.relative_to(home).as_posix() if absolute.is_relative_to(home) else absolute.as_posix()

    header = {
        "format": FORMAT,
        "version": VERSION,
        "classes": list(manifest.classes),
        "root": stored(manifest.root),
        "test_root": stored(manifest.test_root),
        "mask_root": stored(manifest.mask_root),
        "test_mask_root": stored(manifest.test_mask_root),
        "unlabelled_root": stored(manifest.unlabelled_root),
        "decoder": {"alpha_over": list(BACKGROUND), "exif": "transposed", "frame": "first"},
        "sha256": manifest.sha256,
        "problems": list(manifest.problems),
        "notes": list(manifest.notes),
    }
    lines = [header, *map(vars, manifest.images)]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    write_bytes(Path(path), text.encode())


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest. A byte order mark and CRLF line ends are accepted.

    Raises:
        DataError: naming file and line: a wrong field, a path that leaves its folder, a missing or repeated file.
    """
    lines = _lines(Path(path))
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path} is empty, a manifest starts with a header line", _REMEDY)
    manifest = _header(Path(path), *header)
    real_folder = cache(os.path.realpath)
    images, seen = [], set()
    for number, content in lines:
        image = _record(f"{path} line {number}", content, len(manifest.classes))
        key = (image.path, image.split == "test", image.label == NO_CLASS)
        if key in seen:
            raise DataError(f"{path} line {number}: {shown(image.path)} is listed twice", _REMEDY)
        seen.add(key)
        _check_files(f"{path} line {number}", manifest, image, real_folder)
        images.append(image)
    whole = replace(manifest, images=tuple(images))
    declared = header[1].get("sha256")
    if declared is not None and declared != whole.sha256:
        raise DataError(f"{path}: the rows do not match the hash in the header, some were changed", _REMEDY)
    return whole


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, JSON object) of every line that is not blank."""
    refuse_pipe(path)
    try:
        with open(path, "rb") as stream:
            number = 0
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise DataError(f"{path} line {number}: a line must have at most 1 MiB", _REMEDY)
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, _object(f"{path} line {number}", text)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "give a folder or the manifest of a scan") from error
    except UnicodeDecodeError as error:
        cause = f"{path} line {number}: must be UTF-8 text"
        raise DataError(cause, "give a folder or the manifest of a scan") from error


def _object(where: str, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: must be a JSON object, {error}", "give a folder or the manifest of a scan"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: must be a JSON object, found {type(content).__name__}", _REMEDY)
    return content


def _header(path: Path, number: int, content: dict[str, Any]) -> Manifest:
    where = f"{path} line {number}"
    if content.get("format") != FORMAT:
        cause = f"{where}: the header must say format {FORMAT!r}, found {shown(content.get('format'))}"
        raise DataError(cause, "give a folder or the manifest of a scan")
    if content.get("version") != VERSION:
        cause = f"{where}: this program reads version {VERSION}, found {shown(content.get('version'))}"
        raise DataError(cause, _REMEDY)
    classes = content.get("classes")
    if not _strings(classes) or not classes or len(set(classes)) < len(classes):
        raise DataError(f"{where}: classes must be a list of different names", _REMEDY)
    for name in classes:
        if (fault := name_fault(name)) is not None:
            raise DataError(f"{where}: class name {shown(name)} {fault}", _REMEDY)
    home = Path(os.path.realpath(path)).parent
    folders: dict[str, Path | None] = {}
    for key in ("root", "test_root", "mask_root", "test_mask_root", "unlabelled_root"):
        value = content.get(key)
        if not (isinstance(value, str) or (value is None and key != "root")) or "\0" in (value or ""):
            raise DataError(f"{where}: {key} must be a folder, found {shown(value)}", _REMEDY)
        folders[key] = None if value is None else home / value
        if folders[key] is not None and not os.path.isdir(str(folders[key])):
            raise DataError(f"{where}: {key} {folders[key]} is not a folder", "restore it or scan again")
    problems, notes = content.get("problems", []), content.get("notes", [])
    if not _strings(problems) or not _strings(notes):
        raise DataError(f"{where}: problems and notes must be lists of text", _REMEDY)
    if not is_storable(content):
        cause = f"{where}: the header must hold text in UTF-8 and finite numbers, at most 32 levels deep"
        raise DataError(cause, _REMEDY)
    root = folders.pop("root")
    assert root is not None
    return Manifest(root, tuple(classes), (), **folders, problems=tuple(problems), notes=tuple(notes))


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _record(where: str, content: dict[str, Any], num_classes: int) -> ImageRecord:
    if set(content) != set(FIELDS):
        wrong = shown(sorted(set(content) ^ set(FIELDS)))[1:-1]
        raise DataError(f"{where}: a row must hold exactly the fields of an image, wrong or missing: {wrong}", _REMEDY)
    for key, (check, expected) in FIELDS.items():
        if not check(content[key]):
            raise DataError(f"{where}: {key} must be {expected}, found {shown(content[key])}", _REMEDY)
    for key in ("path", "mask"):
        fault = None if content[key] is None else path_fault(content[key])
        if fault is not None:
            raise DataError(f"{where}: {key} {shown(content[key])} {fault}", _REMEDY)
    if content["label"] >= num_classes:
        raise DataError(
            f"{where}: label {content['label']} is unknown, the header lists {num_classes} classes", _REMEDY
        )
    if content["label"] == NO_CLASS and not _classless(content):
        cause = f"{where}: an image without a class must be an unlabelled one of the split train, without box and mask"
        raise DataError(cause, _REMEDY)
    box = content["box"]
    if box is not None:
        box = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        if box[0] < 0 or box[1] < 0 or box[2] > content["width"] or box[3] > content["height"]:
            raise DataError(f"{where}: box {box} leaves its image, {content['width']} x {content['height']}", _REMEDY)
    return ImageRecord(**{**content, "box": box})


def _classless(content: dict[str, Any]) -> bool:
    annotated = content["labelled"] or content["box"] is not None or content["mask"] is not None
    return content["split"] == "train" and not annotated


def _check_files(where: str, manifest: Manifest, image: ImageRecord, real_folder: Callable[[str], str]) -> None:
    """The files exist and, links followed, lie below their folders; `real_folder` is `os.path.realpath` of a folder."""
    for file, relative in ((manifest.file(image), image.path), (manifest.mask_file(image), image.mask)):
        if file is None or relative is None:
            continue
        root = real_folder(str(file)[: -len(relative)])
        real = followed(str(file), real_folder)
        if not real.startswith(root + os.sep):
            raise DataError(f"{where}: {relative!r} is a link that leaves its folder", "copy the file into the folder")
        if not os.path.isfile(real):
            raise DataError(f"{where}: {relative!r} does not exist below {root}", "restore the file or scan again")
