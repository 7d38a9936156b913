"""Image files into RGB pixels, or an error that names the file, the cause and the remedy.

Formats: JPEG, PNG, WEBP, BMP, TIFF, GIF, recognised by content and never by suffix. Limits are checked on the
header, before a pixel is allocated, because a file of 12 KB may declare 100 million pixels.

| code | meaning                                             |
|------|-----------------------------------------------------|
| E101 | the file is empty                                   |
| E102 | not an image of an accepted format (text, HTML ...) |
| E103 | truncated or damaged                                |
| E104 | larger than the limits                              |
| E105 | pixel type without a declared range (float, int32)  |
| E106 | cannot be read: missing, broken link, no permission |
| W101 | several frames: the first is used                   |
| W102 | damaged EXIF block: ignored                         |
| W103 | the suffix names another format than the content    |
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from finegan_aug.errors import DataError

MAX_PIXELS = 64_000_000
MAX_SIDE_PX = 20_000
MAX_ASPECT = 50
MAX_FILE_BYTES = 64 * 2**20
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
}
BACKGROUND = (255, 255, 255)  # transparent pixels lie over white

_LIMITS = "scale the image down or remove it"
_DAMAGED = "restore the file from its source or remove it"
_CONVERT = "convert it to 8-bit RGB (JPEG or PNG) or remove it"
_ORIENTATION_TAG = 0x0112
_MAY_HOLD_EXIF = frozenset(("exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"))
_EMPTY_EXIF_BYTES = 20  # marker, TIFF header and a directory without tags
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(DataError):
    """An image file that cannot be used. The cause reads `CODE path: what is wrong`."""

    @property
    def code(self) -> str:
        """E101 to E106, see the table of the module."""
        return self.cause.split(" ", 1)[0]


def decode(path: str | Path) -> Image.Image:
    """The image as 8-bit RGB, upright (EXIF orientation applied), alpha over white, first frame only.

    16-bit grey is scaled by its full range, 16-bit colour by Pillow's high byte. Colour profiles are not applied.

    Raises:
        ImageError: the file cannot be used, with a code E101 to E106.
    """
    image, notes, _ = decode_with_notes(path)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return image


def decode_with_notes(path: str | Path) -> tuple[Image.Image, tuple[str, ...], str]:
    """`decode`, with what was repaired (`W101 path: ...`) and the stored kind such as "JPEG RGB"."""
    name = os.fspath(path)
    try:
        size_bytes = os.stat(name).st_size
    except (OSError, ValueError) as error:
        raise _error(
            "E106", name, f"cannot be read: {_reason(error)}", "restore the file or remove its link"
        ) from error
    if size_bytes == 0:
        raise _error("E101", name, "the file is empty", _DAMAGED)
    if size_bytes > MAX_FILE_BYTES:
        raise _error("E104", name, f"a file must be at most 64 MiB, found {size_bytes / 2**20:.0f} MiB", _LIMITS)
    try:
        opened = Image.open(name, formats=FORMATS)
    except Exception as error:
        raise _open_error(name, error) from error
    with opened:
        _check_size(name, *opened.size)
        kind = f"{opened.format} {opened.mode}"
        try:
            opened.load()
        # Pillow's plugins raise nearly anything on damaged files: OSError, SyntaxError, struct.error, IndexError ...
        except Exception as error:
            raise _error("E103", name, f"the image is truncated or damaged: {_reason(error)}", _DAMAGED) from error
        image = _to_rgb(name, opened)
        orientation, damaged = _orientation(opened)
        notes = _notes(name, opened)  # last, since a look at what stands behind the first frame moves the reader there
        if damaged:
            notes.append(f"W102 {name}: the EXIF block is damaged and was ignored")
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    return image, tuple(notes), kind


def _check_size(name: str, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise _error("E103", name, f"the image declares {width} x {height} pixels", _DAMAGED)
    if width * height > MAX_PIXELS:
        megapixels = width * height / 1e6
        raise _error("E104", name, f"an image must have at most 64 Mpx, found {megapixels:.0f} Mpx", _LIMITS)
    if max(width, height) > MAX_SIDE_PX:
        raise _error("E104", name, f"a side must be at most 20,000 px, found {width} x {height}", _LIMITS)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _error("E104", name, f"the sides must differ at most 50-fold, found {width} x {height}", _LIMITS)


def _notes(name: str, opened: Image.Image) -> list[str]:
    notes = []
    # MPO is a JPEG with camera previews behind it, hence no animation.
    if opened.format != "MPO" and _has_frames(opened):
        notes.append(f"W101 {name}: the file has several frames, the first is used")
    expected = SUFFIXES.get(os.path.splitext(name)[1].lower())
    if expected is not None and opened.format not in (expected, "MPO"):
        notes.append(f"W103 {name}: named as {expected} but holds {opened.format}, read as {opened.format}")
    return notes


def _has_frames(opened: Image.Image) -> bool:
    """Whether there is anything behind the first frame, be it damaged: Pillow then raises nearly anything."""
    try:
        return bool(getattr(opened, "is_animated", False))
    except Exception:
        return True


def _orientation(image: Image.Image) -> tuple[int | None, bool]:
    """EXIF orientation, and whether the block is damaged: Pillow then raises, or finds no tag in it."""
    if image.format != "TIFF" and _MAY_HOLD_EXIF.isdisjoint(image.info):
        return None, False
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION_TAG)
    except Exception:
        return None, True
    stored = image.info.get("exif")
    return orientation, isinstance(stored, bytes) and len(stored) > _EMPTY_EXIF_BYTES and len(exif) == 0


def _to_rgb(name: str, image: Image.Image) -> Image.Image:
    """8-bit RGB copy of a loaded image."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float32)
        if _tag(image, 262) == 0:  # TIFF: white is zero
            values = 65535.0 - values
        # Pillow's own conversion clips at 255 and makes nearly everything white.
        return Image.fromarray(np.rint(values / 257.0).astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "I"):
        cause = f"pixels of mode {image.mode} (float or 32-bit) have no declared range"
        raise _error("E105", name, cause, _CONVERT)
    try:
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            if image.mode == "La":
                image = image.convert("LA")
            image = image.convert("RGBA")
            canvas = Image.new("RGB", image.size, BACKGROUND)
            canvas.paste(image, mask=image.getchannel("A"))
            return canvas
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise _error("E105", name, f"pixels of mode {image.mode} cannot become RGB", _CONVERT) from error


def _tag(image: Image.Image, number: int) -> object:
    tags = getattr(image, "tag_v2", None)
    return None if tags is None else tags.get(number)


def _open_error(name: str, error: Exception) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        return _error("E104", name, "an image must have at most 64 Mpx, found more than 178 Mpx", _LIMITS)
    if isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError):
        return _error("E106", name, f"cannot be read: {_reason(error)}", "restore the file or its permissions")
    if isinstance(error, UnidentifiedImageError):
        head = _head(name)
        if head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")):
            return _error("E103", name, "the image is truncated or damaged within its header", _DAMAGED)
        looks = "an HTML page" if b"<html" in head.lower() or b"<!doctype" in head.lower() else "something else"
        return _error("E102", name, f"an image must be JPEG, PNG, WEBP, BMP, TIFF or GIF, found {looks}", _CONVERT)
    return _error("E103", name, f"the image is truncated or damaged: {_reason(error)}", _DAMAGED)


def _head(name: str) -> bytes:
    try:
        with open(name, "rb") as stream:
            return stream.read(512)
    except OSError:
        return b""


def _reason(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())[:120]


def _error(code: str, name: str, cause: str, remedy: str) -> ImageError:
    return ImageError(f"{code} {name}: {cause}", remedy)
