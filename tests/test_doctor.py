"""The doctor lists everything at once, and its background shares are those of training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from blurred_pictures import folder, picture
from PIL import Image

from finegan_aug.data.background import check_background
from finegan_aug.data.doctor import run_doctor
from finegan_aug.data.doctor_text import format_report
from finegan_aug.data.folder import scan, write_manifest
from finegan_aug.data.manifest import Box, ImageRecord
from finegan_aug.patches import patch_geometry

torch.set_num_threads(1)


def ants_and_bees(root: Path, first: int = 0, per_class: int = 24) -> Path:
    return folder(root, {"ant": per_class, "bee": per_class}, first, size=(80, 80))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ants_and_bees(tmp_path_factory.mktemp("photos"), per_class=30)


def record(box: Box | None, side: int = 100) -> ImageRecord:
    return ImageRecord("a.png", "0" * 64, "0" * 16, side, side, 0, "train", box=box)


def test_a_sound_folder_has_no_problem_and_exit_code_zero(photos: Path) -> None:
    report = run_doctor(photos)
    assert report.problems == ()
    assert (report.exit_code(), report.exit_code(warnings_as_errors=True)) == (0, 0)
    assert [(row.name, row.train, row.test) for row in report.rows] == [("ant", 24, 6), ("bee", 24, 6)]
    assert report.kinds == {"PNG RGB": 60}


def test_all_bad_files_are_listed_with_code_path_and_remedy(tmp_path: Path) -> None:
    root = ants_and_bees(tmp_path / "photos")
    whole = (root / "ant" / "0000.png").read_bytes()
    bad = {
        "ant/empty.jpg": (b"", "E101"),
        "ant/text.jpg": (b"hello", "E102"),
        "ant/page.png": (b"<html></html>", "E102"),
        "bee/cut.png": (whole[:600], "E103"),
        "bee/thin.png": (b"", "E104"),
    }
    for name, (content, _) in bad.items():
        (root / name).write_bytes(content)
    Image.new("1", (2, 3000)).save(root / "bee" / "thin.png")
    (root / "bee" / "link.png").symlink_to("/nowhere.png")
    report = run_doctor(root)
    expected = {(name, code) for name, (_, code) in bad.items()} | {("bee/link.png", "E108")}
    assert {(p.path, p.code) for p in report.problems if p.is_error} == expected
    assert all(p.cause and p.remedy for p in report.problems)
    assert (report.images, report.files, report.errors, report.exit_code()) == (48, 54, 6, 3)
    text = format_report(report)
    assert "48 usable images of 54, 2 classes" in text
    assert "E101 ant/empty.jpg: the file is empty; restore the file from its source or remove it" in text


def test_warnings_leave_zero_unless_asked(tmp_path: Path) -> None:
    root = ants_and_bees(tmp_path / "photos")
    picture(3, 80, 80).save(root / "ant" / "copy.bmp")
    picture(5, 80, 80).save(root / "bee" / "other.bmp")
    Image.new("RGB", (80, 80), "black").save(root / "bee" / "black.png")
    (root / "ant" / "wrong.jpg").write_bytes((root / "ant" / "0000.png").read_bytes())
    report = run_doctor(root)
    assert {(p.code, p.path) for p in report.problems} == {
        ("W103", "ant/wrong.jpg"),
        ("W105", "bee/black.png"),
        ("W401", "ant/0000.png"),
        ("W401", "ant/0003.png"),
        ("W403", "ant/0005.png"),
    }
    assert set(report.duplicates) == {
        ("ant/0000.png", "ant/wrong.jpg"),
        ("ant/0003.png", "ant/copy.bmp"),
        ("ant/0005.png", "bee/other.bmp"),
    }
    assert "under different classes: ant, bee" in format_report(report)
    assert (report.exit_code(), report.exit_code(warnings_as_errors=True)) == (0, 3)


def test_class_and_leak_problems_do_not_hide_one_another(tmp_path: Path) -> None:
    root, test = ants_and_bees(tmp_path / "photos"), ants_and_bees(tmp_path / "test", first=100, per_class=2)
    (root / "cat").mkdir()
    picture(200, 80, 80).save(root / "cat" / "one.png")
    picture(0, 80, 80).save(test / "ant" / "leak.png")
    report = run_doctor(root, test_data=test)
    assert {p.code for p in report.problems if p.is_error} == {"E203", "E204", "E401"}


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_at_all_is_a_report_too(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "data").mkdir()
    report = run_doctor(tmp_path / "data")
    assert [p.code for p in report.problems] == ["E201" if exists else "E200"]
    assert report.exit_code() == 3
    assert "0 usable images" in format_report(report)


def test_a_manifest_is_checked_against_its_files(photos: Path, tmp_path: Path) -> None:
    root = ants_and_bees(tmp_path / "photos")
    manifest = scan(root)
    write_manifest(manifest, tmp_path / "m.jsonl")
    assert run_doctor(tmp_path / "m.jsonl").errors == 0
    picture(99, 80, 80).save(root / "ant" / "0000.png")
    (root / "bee" / "0024.png").write_bytes(b"")
    report = run_doctor(tmp_path / "m.jsonl")
    errors = [(p.code, p.path) for p in report.problems if p.is_error]
    assert errors == [("E101", "bee/0024.png"), ("E109", "ant/0000.png")]


def test_small_images_and_too_many_codes_are_warned_of(photos: Path) -> None:
    report = run_doctor(photos, resolution=128, modes_per_class=5)
    assert [p.code for p in report.problems] == ["W502", "W503"]
    assert report.problems[0].cause == "48 of 48 training images are smaller than 128 px and would be enlarged"
    assert report.codes.startswith("10 codes, 5 for each class; the smallest class gives 4.8 training images to each")


def test_boxes_that_fill_the_frame_are_warned_of(photos: Path, tmp_path: Path) -> None:
    with open(tmp_path / "b.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "x", "y", "w", "h"])
        writer.writerows([path.relative_to(photos).as_posix(), 5, 5, 70, 70] for path in photos.rglob("*.png"))
    report = run_doctor(photos, boxes=tmp_path / "b.csv")
    assert [p.code for p in report.problems] == ["W501"]
    assert report.problems[0].cause.startswith("boxes given leave no background patch in 100% of crops at 64 px")
    assert [row.boxes for row in report.rows] == [30, 30]


@pytest.mark.parametrize(("relative", "expected"), [(0.3, (0.52, 0.54, 0.44, 0.44)), (0.4, (0.28, 0.29, 0.16, 0.16))])
def test_shares_of_centred_boxes_are_those_of_the_design_table(relative: float, expected: tuple[float, ...]) -> None:
    """Without a random crop: the geometry alone, a centred square of relative side f."""
    for resolution, share in zip((32, 64, 128, 256), expected, strict=True):
        geometry = patch_geometry(resolution)
        low, high = geometry.input_px * (1 - relative) / 2, geometry.input_px * (1 + relative) / 2
        outside = geometry.outside_boxes(torch.tensor([[low, low, high, high]]))
        assert float(outside.mean()) == pytest.approx(share, abs=0.02)


def test_shares_over_crops_equal_a_count_by_hand() -> None:
    """Reference: slow loops over every offset of the crop, every unit, with the overlap written out."""
    box, side = (30.0, 20.0, 60.0, 50.0), 100
    geometry = patch_geometry(32)
    frame = geometry.input_px * 76 // 64
    scaled = [value * frame / side for value in box]
    shares = []
    for top in range(frame - geometry.input_px + 1):
        for left in range(frame - geometry.input_px + 1):
            x1, x2 = (min(max(v - left, 0), geometry.input_px) for v in (scaled[0], scaled[2]))
            y1, y2 = (min(max(v - top, 0), geometry.input_px) for v in (scaled[1], scaled[3]))
            free = 0
            for i in range(geometry.units):
                for j in range(geometry.units):
                    y, x = i * geometry.stride_px, j * geometry.stride_px
                    field = geometry.receptive_field_px
                    free += not (y + field >= y1 and y <= y2 and x + field >= x1 and x <= x2)
            shares.append(free / geometry.units**2)
    found = check_background([record(box)] * 40, [None] * 40, crops=20)
    given = next(share for share in found if share.resolution_px == 32 and share.choice == "given")
    # 800 crops: the standard error is the spread of the shares over the square root of 800; 5 of them.
    assert given.valid == pytest.approx(np.mean(shares), abs=5 * float(np.std(shares)) / 800**0.5)
    assert (given.without, given.units, given.images) == (0.0, 169, 40)


def test_masks_leave_at_least_as_much_as_their_boxes(tmp_path: Path) -> None:
    disc = Image.new("L", (100, 100))
    y, x = np.mgrid[0:100, 0:100]
    disc = Image.fromarray((((x - 50) ** 2 + (y - 50) ** 2 < 20**2) * 255).astype(np.uint8))
    disc.save(tmp_path / "m.png")
    found = check_background([record((31.0, 31.0, 70.0, 70.0))] * 10, [tmp_path / "m.png"] * 10)
    by_choice = {(share.choice, share.resolution_px): share.valid for share in found}
    for resolution in (32, 64, 128, 256):
        assert 1 > by_choice["from_masks", resolution] >= by_choice["given", resolution] > 0


def test_without_boxes_only_the_border_is_offered() -> None:
    found = check_background([record(None)], [None])
    assert [(share.choice, share.resolution_px) for share in found] == [("border", r) for r in (32, 64, 128, 256)]
    assert found[0].valid == pytest.approx((13**2 - 11**2) / 13**2)
