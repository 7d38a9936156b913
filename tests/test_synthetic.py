"""The folder of synthetic images: names, files, manifest, index, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import CLASSES, SIDE_PX, picture, real_folder, synthetic_folder

from finegan_aug.errors import DataError, LeakError, StorageError
from finegan_aug.synthetic import (
    INDEX,
    MANIFEST,
    Header,
    SyntheticRow,
    class_folder,
    encode,
    file_name,
    read_rows,
    write_index,
    write_manifest,
)
from finegan_aug.synthetic_index import KEPT, open_index
from finegan_aug.synthetic_rows import row_line


@pytest.mark.parametrize("name", ["rose", "Great-Auk_2.b", "7", "x" * 100])
def test_a_plain_class_name_is_its_folder(name: str) -> None:
    assert class_folder(name, 7) == name


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "a/b",
        "a b",
        "",
        ".",
        "..",
        "é",
        "🌸",
        "x" * 101,
        "CON",
        "nul.txt",
        "Com1",
        "trailing.",
        ".hidden",
        "--help",
        "class_0003",
    ],
)
@pytest.mark.fault("bad input: class names that are no folder")
def test_any_other_class_name_becomes_a_number(name: str) -> None:
    assert class_folder(name, 7) == "class_0007"


def test_no_two_classes_share_a_folder() -> None:
    names = ["class_0002", "class_0000", "a b", "a_b", "con"]
    assert len({class_folder(name, label) for label, name in enumerate(names)}) == len(names)


def test_an_image_is_named_by_its_class_and_number() -> None:
    assert file_name("roses", 0, 17, "png") == "roses/00000017.png"
    assert file_name("wild roses", 3, 17, "jpeg") == "class_0003/00000017.jpg"


@pytest.mark.parametrize(("image_format", "quality"), [("png", None), ("webp", None)])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, image_format: str, quality: int | None) -> None:
    image = picture(1, 2)
    (tmp_path / "x").write_bytes(encode(image, image_format, quality))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x").convert("RGB")), image)


@pytest.mark.parametrize(("image_format", "worse"), [("jpeg", 60), ("webp", 60)])
def test_quality_makes_files_smaller_and_the_same_pixels_give_the_same_bytes(image_format: str, worse: int) -> None:
    image = picture(1, 2)
    assert len(encode(image, image_format, worse)) < len(encode(image, image_format))
    assert encode(image, image_format, worse) == encode(image.copy(), image_format, worse)


def test_an_unknown_image_format_is_refused() -> None:
    with pytest.raises(
        DataError, match="the image format must be png, webp or jpeg, found 'bmp'; name one of the three"
    ):
        encode(picture(0, 0), "bmp")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    row = SyntheticRow("ant/00000000.png", "ant", 0, 0, 1, 2, 3, 4, "a" * 64, {"score": 0.1 + 0.2}, False, "by_hand")
    header = Header(("ant", "wild bee"), 64, "png", {"seed": 3}, {"top_k": 1})
    write_manifest(tmp_path, header, [row])
    assert read_rows(tmp_path) == (header, [row])
    first, second = (json.loads(line) for line in (tmp_path / MANIFEST).read_text().splitlines())
    assert first["format"] == "finegan_aug synthetic set"
    assert list(second) == [
        "file", "class", "label", "image", "child", "parent", "background", "seed", "sha256", "scores", "kept",
        "dropped_by",
    ]  # fmt: skip


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    synthetic_folder(tmp_path)
    expected = read_rows(tmp_path)
    text = (tmp_path / MANIFEST).read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / MANIFEST).write_bytes(b"\xef\xbb\xbf" + text)
    assert read_rows(tmp_path) == expected
    assert len(open_index(tmp_path)) == len(expected[1])


GOOD = {
    "file": "ant/0.png", "class": "ant", "label": 0, "image": 0, "child": None, "parent": None, "background": None,
    "seed": None, "sha256": None, "scores": {}, "kept": True, "dropped_by": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../x.png"}, r"file '../x.png' must not hold empty parts, \. or \.\."),
        ({"file": "a/../../x.png"}, "must not hold empty parts"),
        ({"file": "/etc/passwd"}, "must be relative"),
        ({"file": "~/x.png"}, "must be relative"),
        ({"file": "C:/x.png"}, "must be relative"),
        ({"file": "\\\\host\\x.png"}, "must be relative"),
        ({"file": "http://x/y.png"}, "must be relative"),
        ({"file": "a/\0.png"}, "must not hold control characters"),
        ({"file": "a\n.png"}, "must not hold control characters"),
        ({"file": "a\u202egnp.png"}, "must not hold control characters"),
        ({"file": "a/" + "x" * 4096}, "must have 1 to 1024 characters"),
        ({"file": ""}, "must have 1 to 1024 characters"),
        ({"file": 3}, "file must be text, found 3"),
        ({"label": -1}, "label -1 must be the place of class 'ant' in the header"),
        ({"label": 1}, "label 1 must be the place of class 'ant' in the header"),
        ({"label": True}, "label must be a whole number of at most 63 bits, found True"),
        ({"label": "0"}, "label must be a whole number of at most 63 bits, found '0'"),
        ({"class": "bird"}, "label 0 must be the place of class 'bird' in the header"),
        ({"image": -1}, "image must not be negative, found -1"),
        ({"child": 1.5}, "child must be a whole number of at most 63 bits or null, found 1.5"),
        ({"sha256": "xyz"}, "sha256 must be 64 hexadecimal digits or null, found 'xyz'"),
        ({"scores": {"a": "b"}}, "scores must be finite numbers"),
        ({"scores": []}, r"scores must be an object, found \[\]"),
        ({"kept": 1}, "kept must be true or false, found 1"),
        ({"kept": False}, "dropped_by must be null exactly when kept is true, found None"),
        ({"extra": 1}, "the keys must be file, class"),
        ({"image": 10**30}, "image must be a whole number of at most 63 bits, found 1000000"),
        ({"child": -(10**30)}, "child must be a whole number of at most 63 bits or null, found -1000000"),
        ({"scores": {"a": 10**400}}, "scores must be finite numbers"),
        ({"scores": {"\ud800": 1}}, "the line must hold text in UTF-8 and finite numbers"),
        ({"kept": False, "dropped_by": "\ud800"}, "the line must hold text in UTF-8 and finite numbers"),
    ],
)
@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_wrong_row_is_refused_with_its_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_manifest(tmp_path, Header(("ant", "bee")), [])
    with open(tmp_path / MANIFEST, "a") as stream:
        stream.write(json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"file": "ant/1.png"} | change) + "\n")
    for read in (read_rows, open_index):
        with pytest.raises(
            DataError, match=rf"manifest.jsonl line 3: .*{message}.*; correct the line or make the set anew"
        ):
            read(tmp_path)


@pytest.mark.parametrize("line", ["[1]", "{", '{"a": NaN}', "[" * 100_000, '"' + "x" * 1_100_000])
@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_line_that_is_no_json_object_is_refused(tmp_path: Path, line: str) -> None:
    write_manifest(tmp_path, Header(("ant",)), [])
    with open(tmp_path / MANIFEST, "a") as stream:
        stream.write(line)
    with pytest.raises(DataError, match="line 2: the line must be a JSON object"):
        read_rows(tmp_path)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, Header(("ant",)), [SyntheticRow("ant/0.png", "ant", 0, 0)] * 2)
    with pytest.raises(DataError, match=r"line 3: file 'ant/0\.png' appears twice"):
        read_rows(tmp_path)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_header_of_another_version_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, Header(("ant",)), [])
    text = (tmp_path / MANIFEST).read_text().replace('"version":1', '"version":2')
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match="line 1: the header must say 'finegan_aug synthetic set' version 1, found"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_format": ["png"]}, r"image_format must be png, webp, jpeg or null, found \['png'\]"),
        ({"resolution": 10**30}, "resolution must be a whole number from 1 to 20000 or null, found 1000000"),
        ({"classes": ["a\n"]}, r"class name 'a\\n' must not hold control characters"),
        ({"made_with": {"a": float("inf")}}, "Infinity is not JSON"),
        ({"made_with": {"a": "\ud800"}}, "the line must hold text in UTF-8 and finite numbers"),
        ({"made_with": {"a": json.loads("[" * 40 + "]" * 40)}}, "the line must hold text in UTF-8 and finite numbers"),
    ],
)
@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_wrong_header_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_manifest(tmp_path, Header(("ant",)), [])
    content = json.loads((tmp_path / MANIFEST).read_text()) | change
    (tmp_path / MANIFEST).write_text(json.dumps(content) + "\n")
    for read in (read_rows, open_index):
        with pytest.raises(DataError, match=rf"manifest.jsonl line 1: .*{message}"):
            read(tmp_path)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_number_that_overflows_to_infinity_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, Header(("ant",), made_with={"a": 7}), [])
    (tmp_path / MANIFEST).write_text((tmp_path / MANIFEST).read_text().replace("7", "1e999"))
    with pytest.raises(DataError, match="line 1: the line must hold text in UTF-8 and finite numbers"):
        read_rows(tmp_path)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """UTF-8 as other languages write halves of characters, and UTF-16: json.loads alone would take both."""
    write_manifest(tmp_path, Header(("ant",), made_with={"a": "x"}), [])
    text = (tmp_path / MANIFEST).read_bytes()
    for wrong in (text.replace(b'"x"', b'"\xed\xa0\x80"'), text.decode().encode("utf-16-le")):
        (tmp_path / MANIFEST).write_bytes(wrong)
        with pytest.raises(DataError, match="line 1: the line must be a JSON object of at most 1 MB in UTF-8"):
            read_rows(tmp_path)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_manifest_that_is_a_folder_or_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / MANIFEST).mkdir(parents=True)
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / MANIFEST)  # opening it would wait for ever
    for folder in ("a", "b"):
        for read in (read_rows, open_index):
            with pytest.raises(DataError, match=r"manifest.jsonl must be a file; remove it or name another folder"):
                read(tmp_path / folder)


def test_file_names_that_no_manifest_could_hold_are_refused_in_a_listed_folder(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    Image.fromarray(picture(0, 0)).save(tmp_path / "ant" / "a.png")
    os.rename(tmp_path / "ant" / "a.png", os.fsencode(tmp_path / "ant") + b"/\xff.png")
    for read in (read_rows, open_index):
        with pytest.raises(DataError, match=r"'ant/\\udcff.png' must not hold control characters.*; rename the file"):
            read(tmp_path)


def test_a_folder_of_classes_without_a_manifest_is_listed(tmp_path: Path) -> None:
    real_folder(tmp_path / "x")
    (tmp_path / "x" / ".hidden").mkdir()
    (tmp_path / "x" / "ant" / "notes.txt").write_text("no image")
    header, rows = read_rows(tmp_path / "x")
    assert header.classes == CLASSES
    assert [row.file for row in rows if row.label == 1] == [f"bee/{n}.png" for n in range(4)]
    index = open_index(tmp_path / "x")
    np.testing.assert_array_equal(np.asarray(index.image(5)), picture(1, 1))
    again = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(again.table, index.table)
    assert not (tmp_path / "x" / INDEX).exists()  # nothing is written into another's folder


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold a manifest or class folders with images, found none; write it with"):
        open_index(tmp_path)


def test_the_index_gives_the_images_of_the_manifest(tmp_path: Path) -> None:
    synthetic_folder(tmp_path, dropped=("bee",))
    index = open_index(tmp_path)
    rows = read_rows(tmp_path)[1]
    assert [index.row(n) for n in range(len(index))] == rows
    assert [[rows[n].class_name for n in pool] for pool in index.pools()] == [["ant"] * 5, [], ["cat"] * 5]
    np.testing.assert_array_equal(np.asarray(index.image(12)), picture(2, 2, synthetic=True))


def test_the_index_is_made_anew_after_a_person_edits_the_manifest(tmp_path: Path) -> None:
    synthetic_folder(tmp_path)
    text = (tmp_path / MANIFEST).read_text()
    edited = text.replace('"kept":true,"dropped_by":null', '"kept":false,"dropped_by":"me"', 1)
    (tmp_path / MANIFEST).write_text(edited)
    assert open_index(tmp_path).table[:, KEPT].tolist() == [0] + [1] * 14
    assert np.load(tmp_path / INDEX, allow_pickle=False)[:, KEPT].sum() == 14  # and written for the next time


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"x" * 100, b"PK\x03\x04 no archive"])
def test_a_missing_or_broken_index_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    synthetic_folder(tmp_path)
    expected = open_index(tmp_path).table.copy()
    (tmp_path / INDEX).write_bytes(damage)
    np.testing.assert_array_equal(open_index(tmp_path).table, expected)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_forged_index_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """The index points into a line at a place where another object, with a bad path, begins."""
    synthetic_folder(tmp_path)
    bad = json.dumps(GOOD | {"file": "../secret.png"}).encode()
    lines = (tmp_path / MANIFEST).read_bytes()
    (tmp_path / MANIFEST).write_bytes(lines + bad)
    forged = np.array([[len(lines), len(lines) + len(bad), 0, 0, 1]])
    np.save(tmp_path / INDEX, forged)
    with pytest.raises(DataError, match=r"file '../secret.png' must not hold empty parts"):
        open_index(tmp_path).image(0)


@pytest.mark.fault("bad input: rows and files that are no manifest")
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_link_leads_neither_out_of_the_folder_nor_is_it_followed(
    tmp_path: Path, listed: bool, whole_folder: bool
) -> None:
    root = synthetic_folder(tmp_path / "set")
    if listed:
        (root / MANIFEST).unlink()
        (root / INDEX).unlink()
    moved = "ant" if whole_folder else "ant/00000000.png"
    (tmp_path / "elsewhere").mkdir()
    (root / moved).rename(tmp_path / "elsewhere" / "it")
    (root / moved).symlink_to(tmp_path / "elsewhere" / "it")
    with pytest.raises(DataError, match=r"ant/00000000\.png is a link that leaves its folder; copy the file into the"):
        open_index(root).image(0)
    (root / "bee" / "new.png").symlink_to(root / "bee" / "00000000.png")
    (tmp_path / "a link").symlink_to(root)
    assert open_index(tmp_path / "a link").image(len(open_index(root)) - 1).size == (SIDE_PX, SIDE_PX)


@pytest.mark.fault("bad input: rows and files that are no manifest")
def test_a_changed_file_is_refused_when_it_is_verified(tmp_path: Path) -> None:
    synthetic_folder(tmp_path)
    index = open_index(tmp_path)
    (tmp_path / "ant/00000000.png").write_bytes(encode(picture(2, 2)))
    with pytest.raises(LeakError, match="is not the file that its manifest names; synthesize the set anew"):
        index.image(0, verify=True)
    assert index.image(0).size == (SIDE_PX, SIDE_PX)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    synthetic_folder(tmp_path)
    (tmp_path / "ant/00000000.png").unlink()
    for verify in (False, True):
        with pytest.raises(DataError, match=r"00000000\.png"):
            open_index(tmp_path).image(0, verify=verify)


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    synthetic_folder(tmp_path)
    before = read_rows(tmp_path)

    def rows_then_disk_full() -> object:
        yield before[1][0]
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device; free space or choose another --out"):
        write_manifest(tmp_path, before[0], rows_then_disk_full())  # type: ignore[arg-type]
    assert read_rows(tmp_path) == before
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


def test_two_hundred_thousand_entries_open_without_reading_them(tmp_path: Path) -> None:
    """A fifth of the million of benchmarks/mixing.py in a fifth of its two seconds; reading all rows takes longer."""
    row = SyntheticRow("ant/0.png", "ant", 0, 0, 1, 1, 1, 2**60, "a" * 64, {"teacher_confidence": 0.123456789})
    write_manifest(tmp_path, Header(("ant", "bee")), [row])
    start, end = np.load(tmp_path / INDEX, allow_pickle=False)[0, :2].tolist()
    with open(tmp_path / MANIFEST, "ab") as stream:
        stream.write(row_line(row) * 199_999)
    starts = start + (end - start) * np.arange(200_000)
    columns = [starts, starts + end - start, *np.zeros((2, 200_000)), np.ones(200_000)]
    write_index(tmp_path, np.stack(columns, axis=1).astype(np.int64))
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        index = open_index(tmp_path)
        pools = index.pools()
        seconds.append(time.process_time() - begin)
    assert [len(pool) for pool in pools] == [200_000, 0]
    assert index.row(199_999) == row
    assert min(seconds) < 0.4
    assert len(pickle.dumps(index)) < 1000
