"""What each field of a row of the data manifest may hold."""

from __future__ import annotations

import re
from collections.abc import Callable

from finegan_aug.data.decode import MAX_SIDE_PX

SPLITS = ("train", "val", "test")
NO_CLASS = -1  # label of a photograph whose class nobody has told


def _is_box(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != 4:
        return False
    # A comparison, because math.isfinite cannot take an integer of 400 digits; NaN is below nothing.
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= 2**31 for v in value):
        return False
    return bool(value[0] < value[2] and value[1] < value[3])


def _is_count(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_hex(value: object, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


# Of each field of a row of the manifest: whether a value is allowed, and what is.
FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "path": (lambda v: isinstance(v, str), "text"),
    "sha256": (lambda v: _is_hex(v, 64), "64 hexadecimal digits"),
    "dhash": (lambda v: _is_hex(v, 16), "16 hexadecimal digits"),
    "width": (lambda v: _is_count(v, 1, MAX_SIDE_PX), f"a number of pixels, 1 to {MAX_SIDE_PX}"),
    "height": (lambda v: _is_count(v, 1, MAX_SIDE_PX), f"a number of pixels, 1 to {MAX_SIDE_PX}"),
    "label": (lambda v: _is_count(v, NO_CLASS, 2**31), "a class index, 0 or more, or -1 for no known class"),
    "split": (lambda v: v in SPLITS, "train, val or test"),
    "labelled": (lambda v: isinstance(v, bool), "true or false"),
    "box": (_is_box, "null or x1, y1, x2, y2 with x1 < x2 and y1 < y2"),
    "mask": (lambda v: v is None or isinstance(v, str), "null or a path"),
}
