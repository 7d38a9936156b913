"""The manifest on disk: written, read, and refused with the line where it is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from blurred_pictures import folder, picture
from PIL import Image

from finegan_aug.data.folder import Manifest, load_data, read_manifest, scan, write_manifest
from finegan_aug.data.outside import path_fault
from finegan_aug.errors import DataError, LeakError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder(tmp_path / "photos", {"ant": 10, "bee": 10})


def masks_of(photos: Path, root: Path) -> Path:
    for path in photos.rglob("*.png"):
        target = root / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 36), 255).save(target)
    return root


@pytest.fixture
def stored(photos: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "b.csv").write_text("path,x1,y1,x2,y2\n" + "".join(f"{n},4,5.25,20,30\n" for n in names))
    manifest = scan(photos, boxes=tmp_path / "b.csv", masks=masks_of(photos, tmp_path / "masks"))
    write_manifest(manifest, tmp_path / "manifest.jsonl")
    return tmp_path / "manifest.jsonl", manifest


def test_a_manifest_comes_back_as_it_was(stored: tuple[Path, Manifest]) -> None:
    path, manifest = stored
    again = read_manifest(path)
    assert again == manifest
    assert again.sha256 == manifest.sha256
    assert load_data(path) == manifest
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["root"], header["mask_root"]) == ("photos", "masks")


def test_manifest_and_photographs_may_move_together(stored: tuple[Path, Manifest], tmp_path: Path) -> None:
    path, manifest = stored
    (tmp_path / "elsewhere").mkdir()
    for name in ("photos", "masks", "manifest.jsonl"):
        os.rename(tmp_path / name, tmp_path / "elsewhere" / name)
    again = read_manifest(tmp_path / "elsewhere" / path.name)
    assert again.sha256 == manifest.sha256
    assert all(again.file(image).exists() for image in again.images)


def test_links_are_followed_once_for_each_folder_and_not_for_each_row(
    stored: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = list[str](), os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: asked.append(str(path)) or real(path))
    read_manifest(stored[0])
    assert len(asked) <= 7  # of 20 images and 20 masks: two roots, two classes in each, the manifest


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_byte_order_mark_and_windows_line_ends_are_read(stored: tuple[Path, Manifest]) -> None:
    path, manifest = stored
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_manifest(path) == manifest


BAD_ROWS: list[tuple[dict[str, object], str]] = [
    ({"path": "../x.png"}, "must not hold empty parts, . or .."),
    ({"path": "/etc/passwd"}, "must be relative"),
    ({"path": "~/x.png"}, "must be relative"),
    ({"path": "C:/x.png"}, "must be relative"),
    ({"path": "\\\\host\\x.png"}, "must be relative"),
    ({"path": "https://host/x.png"}, "must be relative"),
    ({"path": "a\0b.png"}, "control characters"),
    ({"path": "a\nb.png"}, "control characters"),
    ({"path": "a\u202egnp.png"}, "marks of writing direction"),
    ({"path": "a" * 4096}, "must have 1 to 1024 characters, found 4096"),
    ({"path": 7}, "path must be text, found 7"),
    ({"path": "ant/0001.png"}, "is listed twice"),
    ({"path": "ant/nowhere.png"}, "does not exist below"),
    ({"mask": "../x.png"}, "must not hold empty parts, . or .."),
    ({"label": 2}, "label 2 is unknown, the header lists 2 classes"),
    ({"label": -2}, "label must be a class index, 0 or more, or -1 for no known class, found -2"),
    ({"label": -1}, "an image without a class must be an unlabelled one of the split train, without box and mask"),
    ({"label": "ant"}, "label must be a class index, 0 or more, or -1 for no known class, found 'ant'"),
    ({"label": True}, "label must be a class index"),
    ({"split": "holdout"}, "split must be train, val or test, found 'holdout'"),
    ({"labelled": 1}, "labelled must be true or false"),
    ({"width": 0}, "width must be a number of pixels"),
    ({"sha256": "abc"}, "sha256 must be 64 hexadecimal digits"),
    ({"dhash": "G" * 16}, "dhash must be 16 hexadecimal digits"),
    ({"box": [1, 2, 3]}, "box must be null or x1, y1, x2, y2"),
    ({"box": [1, 2, 3, "4"]}, "box must be null or x1, y1, x2, y2"),
    ({"box": [0, 0, 900, 9]}, "leaves its image, 48 x 36"),
    ({"box": [0, 0, 10**400, 9]}, "box must be null or x1, y1, x2, y2"),
    ({"box": [0, 0, float("nan"), 9]}, "box must be null or x1, y1, x2, y2"),
    ({"width": 10**400}, "width must be a number of pixels, 1 to 20000, found 1000000"),
    ({"extra": 1}, "wrong or missing: 'extra'"),
]


@pytest.mark.parametrize(("change", "words"), BAD_ROWS)
@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_bad_row_is_refused_with_its_line(
    stored: tuple[Path, Manifest], change: dict[str, object], words: str
) -> None:
    path, _ = stored
    lines = path.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    line = next(number for number, row in enumerate(rows) if row.get("path") == "ant/0000.png")
    twin = next(number for number, row in enumerate(rows) if row.get("path") == "ant/0001.png")
    rows[line] |= change
    if "twice" in words:
        rows[line]["split"] = rows[twin]["split"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = max(line, twin) if "twice" in words else line
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert f"manifest.jsonl line {expected + 1}: " in caught.value.cause
    assert words in caught.value.cause
    assert "\n" not in str(caught.value)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_changed_row_does_not_match_the_hash_in_the_header(stored: tuple[Path, Manifest]) -> None:
    path, _ = stored
    text = path.read_text()
    assert '"split": "test"' in text
    path.write_text(text.replace('"split": "test"', '"split": "train"', 1))
    with pytest.raises(DataError, match="the rows do not match the hash in the header, some were changed"):
        read_manifest(path)


HEADER = b'{"format": "finegan-aug-manifest", "version": 1, %s}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty, a manifest starts with a header line"),
        (b"hello\n", "line 1: must be a JSON object"),
        (b"[1]\n", "line 1: must be a JSON object, found list"),
        (b"\xff\xd8\xff\n", "line 1: must be UTF-8 text"),
        (b'{"format": "other"}\n', "the header must say format 'finegan-aug-manifest', found 'other'"),
        (b'{"format": "finegan-aug-manifest", "version": 9}\n', "this program reads version 1, found 9"),
        (b"{" + b" " * 2**21, "line 1: a line must have at most 1 MiB"),
        (b"[" * 100_000, "line 1: must be a JSON object"),
        (HEADER % b'"classes": ["a\\n", "b"]', "class name 'a\\n' must not hold control characters"),
        (HEADER % b'"classes": ["\\ud800", "b"]', "class name '\\ud800' must not hold control characters"),
        (HEADER % b'"classes": ["", "b"]', "class name '' must have 1 to 1024 characters, found 0"),
        (HEADER % b'"classes": ["a"], "root": ".", "notes": ["\\ud800"]', "the header must hold text in UTF-8 and"),
        (
            HEADER % b'"classes": ["a"], "root": ".", "decoder": 1e999',
            "the header must hold text in UTF-8 and finite numbers",
        ),
    ],
)
@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_files_that_are_no_manifest_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "m.jsonl")
    assert words in caught.value.cause


@pytest.mark.fault("leaks: a test image that is also a training image")
def test_a_test_image_that_is_also_a_training_image_is_a_leak(stored: tuple[Path, Manifest]) -> None:
    """Without the hash in the header nothing else stands between a person's edit and a contaminated result."""
    path, manifest = stored
    header, *rows = map(json.loads, path.read_text().splitlines())
    del header["sha256"]
    train, test = manifest.of("train")[0], manifest.of("test")[0]
    for first, second in (("train", "test"), ("val", "test")):
        changed = [row | ({"split": first} if row["path"] == train.path else {}) for row in rows]
        changed = [row | ({"sha256": train.sha256} if row["path"] == test.path else {}) for row in changed]
        path.write_text("".join(json.dumps(line) + "\n" for line in (header, *changed)))
        with pytest.raises(LeakError) as caught:
            load_data(path)
        assert caught.value.cause == (
            f"no {second} image may also be a {first} image, found 1, the first is {test.path}, "
            f"the same as {train.path}"
        )
        assert caught.value.remedy == "scan the folder again, or remove one of the two rows"


def test_equal_pixels_within_one_split_are_no_leak(stored: tuple[Path, Manifest]) -> None:
    path, manifest = stored
    header, *rows = map(json.loads, path.read_text().splitlines())
    del header["sha256"]
    first, second = manifest.of("train")[:2]
    rows = [row | ({"sha256": first.sha256} if row["path"] == second.path else {}) for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *rows)))
    assert len(load_data(path).images) == 20


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_row_cannot_reach_out_through_a_link(stored: tuple[Path, Manifest], tmp_path: Path) -> None:
    path, _ = stored
    picture(99).save(tmp_path / "secret.png")
    (tmp_path / "photos" / "ant" / "0000.png").unlink()
    (tmp_path / "photos" / "ant" / "0000.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"'ant/0000.png' is a link that leaves its folder"):
        read_manifest(path)


def test_a_manifest_refuses_options_it_would_override(stored: tuple[Path, Manifest], tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match="a manifest names all its own folders, found masks beside",
    ):
        load_data(stored[0], masks=tmp_path / "masks")


def test_ordinary_names_are_accepted() -> None:
    for name in ("a/b.jpg", "a b/ü (1).png", "..a/b..png", "a/~b.png", "日本/猫.webp"):
        assert path_fault(name) is None
