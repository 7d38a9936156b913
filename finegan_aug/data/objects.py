"""Where the object is in each photograph, and the square round it that becomes its crop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from finegan_aug.data.decode import decode
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.errors import DataError

BoxSource = Literal["given", "from_masks", "none"]
Box = tuple[float, float, float, float]
Bytes = npt.NDArray[np.uint8]


class Objects(NamedTuple):
    """Where the object is in each image: what decides every size in the store."""

    boxes: npt.NDArray[np.float64]  # [N, 4], pixels of the decoded image
    square: npt.NDArray[np.int64]  # [N, 4], the part of the image that the object crop shows
    masks: bool


def check_boxes(records: Sequence[ImageRecord], boxes: BoxSource) -> None:
    """Refuse images without the box or mask that `boxes` asks for."""
    missing = {
        "given": [r.path for r in records if r.box is None],
        "from_masks": [r.path for r in records if r.mask is None],
        "none": [],
    }[boxes]
    if missing:
        what = "box" if boxes == "given" else "mask"
        raise DataError(
            f"boxes={boxes} needs a {what} for every image, {len(missing)} of {len(records)} have none, "
            f"such as {missing[0]}",
            f"add the missing {what}{'es' if what == 'box' else 's'} or choose boxes=none",
        )


def find_objects(manifest: Manifest, records: Sequence[ImageRecord], source: BoxSource) -> Objects:
    """Boxes and the part of each image that its object crop shows.

    Raises:
        DataError: a box or mask is missing, or a mask is not as large as its image.
    """
    check_boxes(records, source)
    if source == "from_masks":
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            boxes = list(pool.map(lambda record: _tight_box(read_mask(manifest, record)), records))
    elif source == "given":
        boxes = [record.box for record in records if record.box is not None]
    else:
        boxes = [(0.0, 0.0, float(record.width), float(record.height)) for record in records]
    if source == "none":
        squares = [(0, 0, record.width, record.height) for record in records]
    else:
        squares = [object_square(box, r.width, r.height) for box, r in zip(boxes, records, strict=True)]
    return Objects(np.array(boxes, np.float64), np.array(squares, np.int64), source == "from_masks")


def object_square(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Square round the box's centre, 1.5 times its longer side, clipped to the image: x1, y1, x2, y2 in whole pixels.

    A box without area or outside the image gives the whole image.
    """
    x1, y1, x2, y2 = box
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        return 0, 0, width, height
    radius = max(1, int(0.75 * max(x2 - x1, y2 - y1)))
    center_x = min(max(int((x1 + x2) / 2), 0), width - 1)
    center_y = min(max(int((y1 + y2) / 2), 0), height - 1)
    left, top = max(0, center_x - radius), max(0, center_y - radius)
    return left, top, min(width, center_x + radius), min(height, center_y + radius)


def _tight_box(mask: Bytes) -> Box:
    ys, xs = mask.max(1).nonzero()[0], mask.max(0).nonzero()[0]
    if not len(xs):
        return 0.0, 0.0, 0.0, 0.0
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def read_mask(manifest: Manifest, record: ImageRecord) -> Bytes:
    """uint8 [H, W], 255 on the object."""
    path = manifest.mask_file(record)
    assert path is not None
    grey = np.asarray(decode(path).convert("L"))
    if grey.shape != (record.height, record.width):
        raise DataError(
            f"mask {path} must be as large as its image, {record.width} x {record.height}, "
            f"found {grey.shape[1]} x {grey.shape[0]}",
            "replace the mask",
        )
    return np.where(grey > 127, np.uint8(255), np.uint8(0))
