"""Decoding: every kind of file gives the right RGB pixels or one line of cause and remedy."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_pictures import lying_bmp, lying_gif, lying_jpeg, lying_png, lying_tiff, lying_webp
from PIL import Image

from finegan_aug.data.decode import ImageError, decode, decode_with_notes


def photo(width: int = 24, height: int = 16) -> Image.Image:
    """Smooth colours, so that JPEG changes little."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 8, y * 12, 255 - x * 4], axis=2).clip(0, 255).astype(np.uint8))


def png(width: int, height: int, depth: int, color_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand: kinds that Pillow cannot save, and headers that lie."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def refused(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert caught.value.cause.startswith(f"{caught.value.code} {path}: ")
    assert caught.value.remedy and "\n" not in str(caught.value)  # noqa: PT018
    return caught.value


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_lossless_formats_give_the_pixels_that_were_saved(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, photo(), **({"lossless": True} if name.endswith("webp") else {}))
    image = decode(path)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(photo()))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr", "L"])
@pytest.mark.fault("bad input: odd and damaged images")
def test_jpeg_colour_spaces_keep_the_mean_colour(tmp_path: Path, mode: str) -> None:
    flat = Image.new("RGB", (16, 16), (200, 100, 50)).convert(mode)
    expected = (124, 124, 124) if mode == "L" else (200, 100, 50)
    mean = np.asarray(decode(saved(tmp_path / "a.jpg", flat, quality=95))).mean((0, 1))
    np.testing.assert_allclose(mean, expected, atol=2)


def ycck(cyan: int, magenta: int, yellow: int, black: int) -> bytes:
    """A flat JPEG in YCCK: Pillow writes four channels as they are, and the marker of Adobe is changed by hand.

    Adobe stores inks inverted, and YCCK holds Y, Cb, Cr of the inverted inks (libjpeg, jdcolor.c, ycck_cmyk_convert).
    """
    y, cb, cr = Image.new("RGB", (1, 1), (cyan, magenta, yellow)).convert("YCbCr").getpixel((0, 0))  # type: ignore[misc]
    stream = io.BytesIO()
    Image.new("CMYK", (16, 16), (255 - y, 255 - cb, 255 - cr, black)).save(stream, "JPEG", quality=100, subsampling=0)
    data = bytearray(stream.getvalue())
    at = data.index(b"Adobe") + 11
    assert data[at] == 0  # CMYK
    data[at] = 2  # YCCK
    return bytes(data)


@pytest.mark.parametrize("inks", [(55, 155, 205, 0), (55, 155, 205, 51), (0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0)])
@pytest.mark.fault("bad input: odd and damaged images")
def test_ycck_gives_the_colours_of_its_inks(tmp_path: Path, inks: tuple[int, int, int, int]) -> None:
    """Known answer: each of red, green and blue is what its ink and black let pass."""
    (tmp_path / "a.jpg").write_bytes(ycck(*inks))
    image, notes, kind = decode_with_notes(tmp_path / "a.jpg")
    expected = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    np.testing.assert_allclose(np.asarray(image).mean((0, 1)), expected, atol=2)
    assert (notes, kind) == ((), "JPEG CMYK")


@pytest.mark.fault("bad input: odd and damaged images")
def test_alpha_lies_over_white_in_every_form(tmp_path: Path) -> None:
    half, palette = Image.new("RGBA", (4, 4), (0, 0, 0, 128)), Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    files = [
        (saved(tmp_path / "rgba.png", half), (127, 127, 127)),
        (saved(tmp_path / "la.png", half.convert("LA")), (127, 127, 127)),
        (saved(tmp_path / "p.png", palette, transparency=1), (255, 255, 255)),
        (saved(tmp_path / "p_opaque.png", palette), (0, 0, 255)),
        (saved(tmp_path / "rgb_key.png", Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9)), (255,) * 3),
        (saved(tmp_path / "half.webp", half, lossless=True), (127, 127, 127)),
    ]
    for path, expected in files:
        np.testing.assert_allclose(np.asarray(decode(path))[0, 0], expected, atol=1, err_msg=path.name)


@pytest.mark.fault("bad input: odd and damaged images")
def test_one_bit_and_one_pixel_are_an_image(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[True, False]])))
    assert np.asarray(decode(path)).tolist() == [[[255] * 3, [0] * 3]]
    assert decode(saved(tmp_path / "b.png", Image.new("1", (1, 1)))).size == (1, 1)


@pytest.mark.fault("bad input: odd and damaged images")
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(tmp_path: Path) -> None:
    """Pillow's own conversion, the trap: mean 254."""
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    files = [saved(tmp_path / f"a.{kind}", Image.fromarray(ramp)) for kind in ("png", "tiff")]
    files.append(tmp_path / "big.tif")
    files[-1].write_bytes(big_endian_tiff(ramp))
    for path in files:
        pixels = np.asarray(decode(path))
        assert abs(pixels.mean() - 127.5) < 1
        assert np.array_equal(pixels[..., 0], np.rint(ramp / 257).astype(np.uint8))


def big_endian_tiff(values: np.ndarray) -> bytes:
    height, width = values.shape
    data = values.astype(">u2").tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16 << 16), (259, 3, 1 << 16), (262, 3, 1 << 16)]
    tags += [(273, 4, 8), (277, 3, 1 << 16), (278, 4, height), (279, 4, len(data))]
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", t, k, 1, v) for t, k, v in tags)
    return b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + directory + b"\0\0\0\0"


@pytest.mark.fault("bad input: odd and damaged images")
def test_sixteen_bit_colour_keeps_its_mean(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + np.full((4, 3), 32768, ">u2").tobytes() for _ in range(4))
    (tmp_path / "a.png").write_bytes(png(4, 4, 16, 2, zlib.compress(rows)))
    assert np.asarray(decode(tmp_path / "a.png")).mean() == pytest.approx(128, abs=1)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.fault("bad input: odd and damaged images")
def test_pixels_without_a_declared_range_are_refused(tmp_path: Path, dtype: type) -> None:
    error = refused(saved(tmp_path / "a.tiff", Image.fromarray(np.ones((4, 4), dtype))))
    assert error.code == "E105"
    assert "(float or 32-bit) have no declared range" in error.cause
    assert error.remedy == "convert it to 8-bit RGB (JPEG or PNG) or remove it"


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
@pytest.mark.fault("bad input: odd and damaged images")
def test_of_several_frames_the_first_is_used_and_a_warning_says_so(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"W101 .* the file has several frames, the first is used"):
        image = decode(path)
    np.testing.assert_allclose(np.asarray(image)[4, 4], (255, 0, 0), atol=4)


@pytest.mark.fault("bad input: odd and damaged images")
def test_damage_behind_the_first_frame_does_no_harm(tmp_path: Path) -> None:
    """Cut anywhere behind the first image of an animation: Pillow then raises IndexError, struct.error and others."""
    first, second = Image.new("RGB", (8, 8), "red"), photo(8, 8)
    saved(tmp_path / "one.gif", first)
    whole = saved(tmp_path / "two.gif", first, save_all=True, append_images=[second]).read_bytes()
    alone = len((tmp_path / "one.gif").read_bytes())
    seen = 0
    for length in range(alone, len(whole)):
        path = tmp_path / "cut.gif"
        path.write_bytes(whole[:length])
        image, notes, _ = decode_with_notes(path)
        assert np.asarray(image)[4, 4].tolist() == [255, 0, 0]
        assert notes in ((), (f"W101 {path}: the file has several frames, the first is used",))
        seen += bool(notes)
    assert seen > 20


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
@pytest.mark.fault("bad input: odd and damaged images")
def test_every_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str) -> None:
    """Reference: the definition of the tag, as rotations and mirrors of numpy that undo the camera's."""
    upright = np.asarray(photo())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path / name, Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options)
    assert np.array_equal(np.asarray(decode(path)), upright)


@pytest.mark.fault("bad input: odd and damaged images")
def test_a_damaged_exif_block_is_ignored_with_a_warning(tmp_path: Path) -> None:
    blocks = [
        b"II*\0\xff\xff\xff\x7f" + b"\xff" * 40,
        b"garbage that is no TIFF header",
        b"MM\0*\0\0\0\x08\0\x09" + bytes(9),
    ]
    for block in blocks:
        path = saved(tmp_path / "a.jpg", photo(), exif=b"Exif\0\0" + block)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own
            image, notes, kind = decode_with_notes(path)
        assert (image.size, kind) == (photo().size, "JPEG RGB")
        assert notes == (f"W102 {path}: the EXIF block is damaged and was ignored",)


def test_an_exif_block_without_tags_is_no_damage(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", photo(), exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(6))
    assert decode_with_notes(path)[1] == ()


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "E101", "the file is empty"),
        (
            b"just some text, no image",
            "E102",
            "an image must be JPEG, PNG, WEBP, BMP, TIFF or GIF, found something else",
        ),
        (b"<!DOCTYPE html><html>404</html>", "E102", "found an HTML page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "E102", "found something else"),
        (b"8BPS\0\1" + bytes(60), "E102", "found something else"),
        (b"SIMPLE  =                    T" + bytes(3000), "E102", "found something else"),
    ],
)
@pytest.mark.fault("bad input: odd and damaged images")
def test_files_that_are_no_images_are_named_as_what_they_are(
    tmp_path: Path, content: bytes, code: str, words: str
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    error = refused(path)
    assert error.code == code
    assert words in error.cause


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.fault("bad input: odd and damaged images")
def test_a_file_cut_at_ten_points_is_always_refused(tmp_path: Path, kind: str) -> None:
    stream = io.BytesIO()
    photo(200, 150).save(stream, kind)
    whole = stream.getvalue()
    for part in range(10):
        path = tmp_path / f"{part}.{kind.lower()}"
        path.write_bytes(whole[: max(5, len(whole) * part // 10)])
        error = refused(path)
        assert error.code == "E103"
        assert "truncated or damaged" in error.cause
        assert error.remedy == "restore the file from its source or remove it"


@pytest.mark.fault("bad input: odd and damaged images")
def test_a_missing_file_and_a_broken_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("nowhere.png", "link.png"):
        assert refused(tmp_path / name).code == "E106"


def compressed_block(kind: bytes) -> bytes:
    """A small PNG with a text or profile of 200 MiB."""
    block = chunk(kind, b"name\0\0" + zlib.compress(bytes(200 * 2**20), 1))
    return png(4, 1, 8, 2, zlib.compress(bytes(20_000)), block)


BOMBS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "PNG 100 Mpx": (lambda: lying_png(10_000, 10_000), "E104", "an image must have at most 64 Mpx, found 100 Mpx"),
    "PNG 196 Mpx": (lambda: lying_png(14_000, 14_000), "E104", "an image must have at most 64 Mpx, found"),
    "GIF 100 Mpx": (lambda: lying_gif(10_000, 10_000), "E104", "an image must have at most 64 Mpx, found 100 Mpx"),
    "GIF 4 Gpx": (lambda: lying_gif(65_535, 65_535), "E104", "an image must have at most 64 Mpx, found"),
    "TIFF 100 Mpx": (lambda: lying_tiff(10_000, 10_000), "E104", "an image must have at most 64 Mpx, found 100 Mpx"),
    "TIFF 4 Epx": (lambda: lying_tiff(2**31 - 1, 2**31 - 1), "E104", "an image must have at most 64 Mpx, found"),
    "WEBP 169 Mpx": (lambda: lying_webp(13_000, 13_000), "E104", "an image must have at most 64 Mpx, found 169 Mpx"),
    "WEBP 268 Mpx": (lambda: lying_webp(16_383, 16_383), "E104", "an image must have at most 64 Mpx, found"),
    "BMP 100 Mpx": (lambda: lying_bmp(10_000, 10_000), "E104", "an image must have at most 64 Mpx, found 100 Mpx"),
    "JPEG 100 Mpx": (lambda: lying_jpeg(10_000, 10_000), "E104", "an image must have at most 64 Mpx, found 100 Mpx"),
    "strip": (lambda: lying_png(10_000_000, 1), "E104", "a side must be at most 20,000 px, found 10000000 x 1"),
    "thin": (lambda: lying_png(2, 3000), "E104", "the sides must differ at most 50-fold, found 2 x 3000"),
    "iCCP": (lambda: compressed_block(b"iCCP"), "E103", "Decompressed data too large"),
    "zTXt": (lambda: compressed_block(b"zTXt"), "E103", "Decompressed data too large"),
}
MEASURE = """
import sys, time, warnings
from finegan_aug.data.decode import ImageError, decode
warnings.simplefilter("ignore")
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
decode(sys.argv[1])  # loads the plugins
before, start = peak(), time.process_time()
try:
    decode(sys.argv[2])
except ImageError as error:
    print(error.cause, time.process_time() - start, (peak() - before) / 1024, sep="\\n")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.fault("bad input: decompression bombs, within 0.2 s and 64 MiB")
def test_bombs_are_refused_in_little_time_and_memory(tmp_path: Path, name: str) -> None:
    """In a process of its own, because a peak once reached hides all later ones."""
    make, code, words = BOMBS[name]
    path = tmp_path / "bomb.png"
    path.write_bytes(make())
    good = saved(tmp_path / "good.png", photo())
    run = subprocess.run([sys.executable, "-c", MEASURE, good, path], capture_output=True, text=True, check=True)
    cause, seconds, mebibytes = run.stdout.splitlines()
    assert cause.startswith(f"{code} {path}: ")
    assert words in cause
    assert float(seconds) < 0.2
    assert float(mebibytes) < 64


@pytest.mark.fault("bad input: odd and damaged images")
def test_a_file_of_more_than_64_mib_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "a.png", "wb") as stream:
        stream.truncate(65 * 2**20)
    error = refused(tmp_path / "a.png")
    assert error.code == "E104"
    assert "a file must be at most 64 MiB, found 65 MiB" in error.cause


@pytest.mark.fault("bad input: odd and damaged images")
def test_a_wrong_suffix_is_read_by_content_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo().save(path, "PNG")
    image, notes, kind = decode_with_notes(path)
    assert np.array_equal(np.asarray(image), np.asarray(photo()))
    assert notes == (f"W103 {path}: named as JPEG but holds PNG, read as PNG",)
    assert kind == "PNG RGB"


def test_errors_survive_the_way_between_processes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    error = refused(tmp_path / "a.png")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code, str(copy)) == (ImageError, "E101", str(error))


def test_mutated_files_raise_our_errors_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.img"
    outcomes: set[str] = set()
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        stream = io.BytesIO()
        photo(32, 24).save(stream, kind)
        for _ in range(60):
            data = np.frombuffer(stream.getvalue(), np.uint8).copy()
            where = rng.integers(0, len(data), 4)
            data[where] = rng.integers(0, 256, 4)
            path.write_bytes(data.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert decode(path).mode == "RGB"
                    outcomes.add("read")
                except ImageError as error:
                    outcomes.add(error.code)
    assert {"read", "E103"} <= outcomes
