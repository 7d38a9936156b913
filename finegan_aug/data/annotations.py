"""Boxes and masks that come with an image folder.

Boxes: a CSV with header `path,x1,y1,x2,y2` or `path,x,y,w,h` (pixels of the upright image), or a folder with the
files images.txt and bounding_boxes.txt of CUB-200-2011. Masks: a parallel folder with the same relative paths, any
image suffix; a pixel above 127 is object.
"""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

from PIL import Image

from finegan_aug.data.decode import SUFFIXES
from finegan_aug.data.manifest import Box
from finegan_aug.data.outside import shown
from finegan_aug.errors import DataError

TOLERANCE_PX = 1.0  # annotation tools round; boxes are clipped to the image within this
MASK_THRESHOLD = 127

_CORNERS = ["path", "x1", "y1", "x2", "y2"]
_SIZES = ["path", "x", "y", "w", "h"]


def read_boxes(source: str | Path) -> dict[str, Box]:
    """Boxes by relative path, as x1, y1, x2, y2.

    Raises:
        DataError: no such file, wrong header, a row that is not four finite numbers, a path named twice.
    """
    path = Path(source)
    try:
        rows = _cub_rows(path) if path.is_dir() else _csv_rows(path)
    except OSError as error:
        cause = f"cannot read the boxes in {error.filename or path}: {error.strerror}"
        raise DataError(cause, "give a CSV with header path,x1,y1,x2,y2 or the folder of CUB") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} must be a CSV in UTF-8: {error}", "give a CSV with header path,x1,y1,x2,y2") from error
    boxes: dict[str, Box] = {}
    for where, name, box in rows:
        key = name.replace("\\", "/").removeprefix("./")
        if key in boxes:
            raise DataError(f"{where}: {shown(key)} has two boxes, an image has one", "keep one row per image")
        boxes[key] = box
    return boxes


def _csv_rows(path: Path) -> list[tuple[str, str, Box]]:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        header = [cell.strip().lower() for cell in next(reader, [])]
        if header not in (_CORNERS, _SIZES):
            cause = f"{path}: the header must be path,x1,y1,x2,y2 or path,x,y,w,h, found {','.join(header)[:80]!r}"
            raise DataError(cause, "write the header that names your columns")
        rows = [(f"{path} line {reader.line_num}", row) for row in reader if any(cell.strip() for cell in row)]
    return [(where, row[0].strip(), _box(where, row[1:], corners=header == _CORNERS)) for where, row in rows]


def _cub_rows(folder: Path) -> list[tuple[str, str, Box]]:
    """Rows of CUB's images.txt (`id path`) and bounding_boxes.txt (`id x y w h`)."""
    names: dict[str, str] = {}
    for place, line in _text_lines(folder / "images.txt"):
        cells = line.split(maxsplit=1)
        if len(cells) < 2:
            cause = f"{folder / 'images.txt'} line {place}: must be `number path`, found {shown(line)}"
            raise DataError(cause, "restore the file from its download")
        names[cells[0]] = cells[1]
    rows = []
    for _, line in _text_lines(folder / "bounding_boxes.txt"):
        number, *cells = line.split()
        where = f"{folder / 'bounding_boxes.txt'} image {shown(number)[1:-1]}"
        if number not in names:
            raise DataError(f"{where} is not in images.txt", "use both files from one download")
        rows.append((where, names[number], _box(where, cells, corners=False)))
    return rows


def _text_lines(path: Path) -> list[tuple[int, str]]:
    """Line number and content of every line that is not blank."""
    lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _box(where: str, cells: list[str], *, corners: bool) -> Box:
    try:
        a, b, c, d = (float(cell) for cell in cells)
    except ValueError:
        found = ",".join(cells)[:80]
        raise DataError(f"{where}: a box must be four numbers, found {found!r}", "correct the row") from None
    if not all(math.isfinite(value) for value in (a, b, c, d)):
        raise DataError(f"{where}: a box must be four finite numbers", "correct the row")
    return (a, b, c, d) if corners else (a, b, a + c, b + d)


def fit_box(box: Box, width: int, height: int) -> Box | str:
    """The box clipped to its image where it leaves it by rounding alone; else what is wrong with it."""
    x1, y1, x2, y2 = box
    shown = f"{x1:g}, {y1:g}, {x2:g}, {y2:g}"
    if x2 <= x1 or y2 <= y1:
        return f"the box {shown} is empty, x1 < x2 and y1 < y2 must hold"
    if min(x1, y1) < -TOLERANCE_PX or x2 > width + TOLERANCE_PX or y2 > height + TOLERANCE_PX:
        return f"the box {shown} leaves the image of {width} x {height} pixels"
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 <= x1 or y2 <= y1:
        return f"the box {shown} leaves the image of {width} x {height} pixels"
    return x1, y1, x2, y2


def find_masks(folder: str | Path) -> dict[str, str]:
    """Relative paths of the mask images below `folder`, by relative path without suffix.

    Raises:
        DataError: no such folder, or two masks for one image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"masks must be a folder, found {root}", "give the folder that mirrors the image folder")
    masks: dict[str, str] = {}
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in SUFFIXES or name.startswith(".") or (Path(directory) / name).is_symlink():
                continue
            relative = (Path(directory) / name).relative_to(root).as_posix()
            key = (Path(directory) / stem).relative_to(root).as_posix()
            if key in masks:
                raise DataError(f"{root}: {masks[key]!r} and {relative!r} belong to one image", "keep one mask each")
            masks[key] = relative
    return masks


def mask_box(mask: Image.Image) -> Box | None:
    """Tight box of the object in a decoded mask, x2 and y2 exclusive, or None for an empty mask."""
    box = mask.convert("L").point(lambda value: 255 * (value > MASK_THRESHOLD)).getbbox()
    return None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
