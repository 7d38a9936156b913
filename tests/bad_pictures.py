"""Bad images and bad folders, as cases of the table in `bad_inputs.py`: what a user does and what the program says."""

from __future__ import annotations

import functools
import io
import os
import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blurred_pictures import picture
from PIL import Image

PER_CLASS = 14  # enough for doctor to have nothing to say about good ones
SMALL = ["--preset", "slim-32", "--boxes", "none"]
REPLACE = "restore the file from its source or remove it"
CONVERT = "convert it to 8-bit RGB (JPEG or PNG) or remove it"
SCALE = "scale the image down or remove it"
LISTED = "; `finegan-aug doctor` lists all, --on-bad-image quarantine skips them"
LOOK = "look at the image, if that is not expected"
MAP = "give the folder that holds one folder per class"


@dataclass(frozen=True)
class Case:
    """One mistake.

    Args:
        make: writes its files into an empty folder and returns the command line; the output folder is FOLDER/out.
        code: exit code.
        cause: regular expression for the whole cause; FOLDER stands for the folder.
        remedy: the whole remedy.
        leaves: names in the output folder afterwards; () where there is none.
    """

    id: str
    make: Callable[[Path], list[str]]
    code: int
    cause: str
    remedy: str
    leaves: tuple[str, ...] = ()


# What good photographs look like


@functools.cache
def png(number: int) -> bytes:
    return encoded(picture(number), "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photographs(root: Path, *names: str, first: int = 0, count: int = PER_CLASS) -> Path:
    """root/CLASS/0000.png ..., other pictures in each class; ant and bee by default."""
    for place, name in enumerate(names or ("ant", "bee")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:04d}.png").write_bytes(png(first + 100 * place + number))
    return root


def train(folder: Path, data: Path, *more: object) -> list[str]:
    return ["train", str(data), "--out", str(folder / "out"), *SMALL, *map(str, more)]


def doctor(data: Path, *more: object) -> list[str]:
    return ["doctor", str(data), "--resolution", "32", "--modes-per-class", "1", *map(str, more)]


# Images


def image_case(id: str, name: str, data: bytes, cause: str, remedy: str) -> Case:
    """An image among good ones that stops the training before it begins."""

    def make(folder: Path) -> list[str]:
        (photographs(folder / "photos") / "ant" / name).write_bytes(data)
        return train(folder, folder / "photos")

    code, _, words = cause.partition(" ")
    whole = f"1 of 29 images cannot be used, the first is {code} ant/{re.escape(name)}: {words}"
    return Case(id, make, 3, whole, remedy + LISTED)


def taken_case(id: str, name: str, data: bytes, cause: str, remedy: str = "") -> Case:
    """An image that is used, with a warning or, where the cause is that of a sound folder, without."""

    def make(folder: Path) -> list[str]:
        (photographs(folder / "photos") / "ant" / name).write_bytes(data)
        return doctor(folder / "photos")

    return Case(id, make, 0, cause, remedy)


SOUND = "0 errors, 0 warnings"


def lying_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def lying_gif(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(1), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def lying_webp(width: int, height: int) -> bytes:
    """The lossless form, whose sides have 14 bits each behind a byte that says so."""
    data = bytearray(encoded(picture(1), "WEBP", lossless=True))
    data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(data)


def lying_tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)


def lying_bmp(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(1), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def lying_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(1), "JPEG"))
    at = data.index(b"\xff\xc0") + 5  # behind the marker, its length and the depth
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../evil.png", png(1))
    return stream.getvalue()


def animated(kind: str) -> bytes:
    return encoded(picture(500), kind, save_all=True, append_images=[picture(501)])


def exotic(mode: str) -> Image.Image:
    grey = np.asarray(picture(500).convert("L"))
    return {
        "CMYK": picture(500).convert("CMYK"),
        "RGBA": Image.merge("RGBA", (*picture(500).split(), picture(501).convert("L"))),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
        "F": Image.fromarray(grey.astype(np.float32)),
        "1": picture(500).convert("1"),
    }[mode]


def unreadable(folder: Path) -> list[str]:
    if os.geteuid() == 0:
        pytest.skip("this user may read every file")
    path = photographs(folder / "photos") / "ant" / "a.png"
    path.write_bytes(png(1))
    path.chmod(0)
    return train(folder, folder / "photos")


NO_IMAGE = "E102 an image must be JPEG, PNG, WEBP, BMP, TIFF or GIF, found something else"
TOO_MANY = "E104 an image must have at most 64 Mpx, found (100|more than 178) Mpx"
IMAGES = [
    image_case("image empty", "a.jpg", b"", "E101 the file is empty", REPLACE),
    image_case("image is text", "a.png", b"no image at all", NO_IMAGE, CONVERT),
    image_case("image is a page", "a.jpg", b"<!DOCTYPE html><html>404", NO_IMAGE[:-14] + "an HTML page", CONVERT),
    image_case("image is an archive", "a.png", zipped(), NO_IMAGE, CONVERT),
    image_case("image is a drawing in PostScript", "a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n", NO_IMAGE, CONVERT),
    image_case(
        "JPEG truncated",
        "a.jpg",
        encoded(picture(1, 99, 99), "JPEG")[:-200],
        "E103 .* truncated or damaged: .+",
        REPLACE,
    ),
    image_case("PNG truncated", "a.png", png(1)[:-200], "E103 the image is truncated or damaged: .+", REPLACE),
    image_case("PNG bomb", "a.png", lying_png(10_000, 10_000), TOO_MANY, SCALE),
    image_case("PNG bomb of 4 Gpx", "a.png", lying_png(60_000, 60_000), TOO_MANY, SCALE),
    image_case("GIF bomb", "a.gif", lying_gif(10_000, 10_000), TOO_MANY, SCALE),
    image_case("WEBP bomb", "a.webp", lying_webp(10_000, 10_000), TOO_MANY, SCALE),
    image_case("TIFF bomb", "a.tif", lying_tiff(10_000, 10_000), TOO_MANY, SCALE),
    image_case("strip", "a.png", lying_png(30_000, 1), "E104 a side must be at most 20,000 px, found 30000 x 1", SCALE),
    image_case(
        "float pixels", "a.tif", encoded(exotic("F"), "TIFF"), "E105 pixels of mode F .+ no declared range", CONVERT
    ),
    Case(
        "image unreadable",
        unreadable,
        3,
        "1 of 29 images cannot be used, the first is E106 ant/a.png: cannot be read: Permission denied",
        "restore the file or its permissions" + LISTED,
    ),
    taken_case("wrong extension", "a.jpg", png(500), "W103 ant/a.jpg: named as JPEG but holds PNG, read as PNG", LOOK),
    taken_case("CMYK", "a.jpg", encoded(exotic("CMYK"), "JPEG"), SOUND),
    taken_case("16-bit grey", "a.png", encoded(exotic("I;16"), "PNG"), SOUND),
    taken_case("alpha", "a.png", encoded(exotic("RGBA"), "PNG"), SOUND),
    taken_case("1-bit", "a.png", encoded(exotic("1"), "PNG"), SOUND),
    taken_case("animated GIF", "a.gif", animated("GIF"), "W101 ant/a.gif: .+ several frames, the first is used", LOOK),
    taken_case(
        "animated WEBP", "a.webp", animated("WEBP"), "W101 ant/a.webp: .+ several frames, the first is used", LOOK
    ),
    taken_case(
        "damaged EXIF",
        "a.jpg",
        encoded(picture(500), "JPEG", exif=b"Exif\0\0" + b"no TIFF header at all, only text"),
        "W102 ant/a.jpg: the EXIF block is damaged and was ignored",
        LOOK,
    ),
    taken_case(
        "one colour",
        "a.png",
        encoded(Image.new("RGB", (40, 40), "black"), "PNG"),
        "W105 ant/a.png: the image is nearly of one colour",
        "remove it if it shows nothing",
    ),
    taken_case(
        "format not read",
        "a.svg",
        b"<svg/>",
        "W104 ant/a.svg: the format .svg is not read, the image was left out",
        "convert it to JPEG or PNG",
    ),
]


# Folders


def folder_case(id: str, spoil: Callable[[Path], None], cause: str, remedy: str, *more: str, code: int = 3) -> Case:
    """Good photographs after `spoil(root)`, trained on; doctor looks at them where the exit code is 0."""

    def make(folder: Path) -> list[str]:
        root = photographs(folder / "photos")
        spoil(root)
        options = [option.replace("FOLDER", str(folder)) for option in more]
        return train(folder, root, *options) if code else doctor(root, *options)

    return Case(id, make, code, cause, remedy)


def emptied(root: Path, keep: int = 0, *names: str) -> None:
    """Leaves `keep` images in the classes, or in all."""
    for name in names or ("ant", "bee"):
        for path in sorted((root / name).iterdir())[keep:]:
            path.unlink()


def without_bee(root: Path) -> None:
    emptied(root, 0, "bee")
    (root / "bee").rmdir()


def as_splits(root: Path) -> None:
    for old, new in (("ant", "train"), ("bee", "test")):
        photographs(root / new / "a")
        emptied(root, 0, old)
        (root / old).rmdir()


def leak(root: Path) -> None:
    photographs(root.parent / "test", first=1000)
    (root.parent / "test" / "bee" / "copy.png").write_bytes(png(3))


def near_leak(root: Path) -> None:
    photographs(root.parent / "test", first=1000)
    picture(3, 96, 72).save(root.parent / "test" / "bee" / "copy.jpg", quality=75)


def secret(root: Path) -> Path:
    (root.parent / "secret.png").write_bytes(png(77))
    return root.parent / "secret.png"


def renamed(root: Path, name: str) -> None:
    os.rename(root / "ant" / "0000.png", root / "ant" / name)


def masks_of_another_size(root: Path) -> None:
    for path in root.rglob("*.png"):
        mask = root.parent / "masks" / path.relative_to(root)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 255).save(mask)


def boxes(text: str) -> Callable[[Path], None]:
    return lambda root: (root.parent / "boxes.csv").write_text(text, encoding="utf-8") and None


def cub(root: Path) -> None:
    (root.parent / "cub").mkdir()
    (root.parent / "cub" / "images.txt").write_text("1\n")
    (root.parent / "cub" / "bounding_boxes.txt").write_text("1 4 5 16 25\n")


def also(name: str) -> Callable[[Path], None]:
    """One more class."""
    return lambda root: photographs(root, name, first=300) and None


FIRST = "[0-9]+ of [0-9]+ images cannot be used, the first is "
FOLDERS = [
    Case(
        "folder missing",
        lambda folder: train(folder, folder / "nowhere"),
        3,
        "the data must be a folder of class folders, FOLDER/nowhere: No such file or directory",
        MAP,
    ),
    Case(
        "folder empty",
        lambda f: train(f, f),
        3,
        "E201 FOLDER must hold class folders with images, found no usable .+",
        MAP,
    ),
    folder_case(
        "one class", without_bee, "E202 FOLDER/photos must hold at least two class folders, found ant alone", MAP
    ),
    folder_case(
        "empty class",
        lambda root: emptied(root, 0, "bee"),
        "E205 class bee of FOLDER/photos holds no usable image",
        "add images or remove the class folder",
    ),
    folder_case(
        "empty class with a line break in its name",
        lambda root: (root / "a\nb").mkdir(),
        r"E205 class a\\nb of FOLDER/photos holds no usable image",
        "add images or remove the class folder",
    ),
    folder_case(
        "class of one image",
        lambda root: emptied(root, 1, "bee"),
        "E203 class bee of FOLDER/photos must hold at least 2 images, found 1",
        "add images or remove the class folder",
    ),
    folder_case(
        "splits in place of classes",
        as_splits,
        "the folders of FOLDER/photos must be classes, found splits: test, train",
        "give --data FOLDER/photos/test and the test images as --test-data",
    ),
    folder_case(
        "classes differ",
        lambda root: photographs(root.parent / "test", "ant", "wasp", first=1000) and None,
        r"E204 training and test folder must hold the same classes, found \[ant, bee\] and \[ant, wasp\]",
        "rename, add or remove class folders",
        "--test-data",
        "FOLDER/test",
    ),
    folder_case(
        "the same photograph in training and test",
        leak,
        "E401 1 test images are also training images, the first is bee/copy.png",
        "remove them from one of the folders; `finegan-aug doctor` lists all",
        "--test-data",
        "FOLDER/test",
    ),
    folder_case(
        "nearly the same photograph in training and test",
        near_leak,
        "W402 bee/copy.jpg: the test image looks like the training image ant/0003.png",
        "look at both, remove one if they are one",
        "--test-data",
        "FOLDER/test",
        code=0,
    ),
    folder_case(
        "link out of the folder",
        lambda root: (root / "ant" / "out.png").symlink_to(secret(root)),
        FIRST + "E108 ant/out.png: the link leaves the folder",
        "copy the file into the folder" + LISTED,
    ),
    folder_case(
        "broken link",
        lambda root: (root / "ant" / "broken.png").symlink_to(root / "nowhere.png"),
        FIRST + "E106 ant/broken.png: the link is broken",
        "restore the file or remove its link" + LISTED,
    ),
    folder_case(
        "loop of links",
        lambda root: (root / "ant" / "loop").symlink_to(root),
        "note: skipped ant/loop: hidden, a system file, a link or not an image",
        "",
        code=0,
    ),
    folder_case(
        "hidden files",
        lambda root: (root / "ant" / "._0000.png").write_bytes(b"AppleDouble") and None,
        "note: skipped ant/._0000.png: hidden, a system file, a link or not an image",
        "",
        code=0,
    ),
    folder_case("folders inside classes", lambda root: also("ant/deep/er")(root), SOUND, "", code=0),
    folder_case(
        "names that differ in case",
        also("Bee"),
        "W205 bee: the class names Bee and bee differ in case alone",
        "rename one, or merge them if they are one class",
        code=0,
    ),
    folder_case(
        "one name in two spellings",
        lambda root: (
            photographs(root, *(unicodedata.normalize(f, "caf\u00e9") for f in ("NFC", "NFD")), first=300) and None
        ),
        "W206 caf\u00e9: two folders spell this class with different characters, they were taken as one",
        "merge the folders",
        code=0,
    ),
    folder_case(
        "line break in a file name",
        lambda root: renamed(root, "a\nb.png"),
        FIRST + r"E107 ant/a\\nb.png: a file name must not hold control characters, line breaks or marks of .+",
        "rename the file" + LISTED,
    ),
    folder_case(
        "bytes that are no text in a file name",
        lambda root: renamed(root, os.fsdecode(b"\xff.png")),
        FIRST + r"E107 ant/\\udcff.png: a file name must not hold control characters, .+",
        "rename the file" + LISTED,
    ),
    folder_case(
        "line break in a class name",
        also("a\nb"),
        FIRST + r"E107 a\\nb/0000.png: a file name must not hold control characters, .+",
        "rename the file" + LISTED,
    ),
    folder_case(
        "box outside its image",
        boxes("path,x1,y1,x2,y2\nant/0000.png,4,4,900,30\n"),
        FIRST + "E301 ant/0000.png: the box 4, 4, 900, 30 leaves the image of 48 x 36 pixels",
        "correct its box" + LISTED,
        "--box-file",
        "FOLDER/boxes.csv",
    ),
    folder_case(
        "boxes without header",
        boxes("ant/0000.png,4,4,30,30\n"),
        "FOLDER/boxes.csv: the header must be path,x1,y1,x2,y2 or path,x,y,w,h, found 'ant/0000.png,4,4,30,30'",
        "write the header that names your columns",
        "--box-file",
        "FOLDER/boxes.csv",
    ),
    folder_case(
        "list of CUB without paths",
        cub,
        "FOLDER/cub/images.txt line 1: must be `number path`, found '1'",
        "restore the file from its download",
        "--box-file",
        "FOLDER/cub",
    ),
    folder_case(
        "masks of another size",
        masks_of_another_size,
        FIRST + "E304 ant/0000.png: image and mask must have one size, found 48 x 36 and 9 x 9",
        "make the mask anew for this image" + LISTED,
        "--mask-folder",
        "FOLDER/masks",
    ),
]
