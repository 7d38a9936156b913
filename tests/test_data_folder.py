"""From folders to a manifest: what is listed, described, split, refused, written and read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from blurred_pictures import folder, picture
from PIL import Image, ImageOps

from finegan_aug.data.duplicates import dhash, pixel_sha256
from finegan_aug.data.folder import scan
from finegan_aug.errors import DataError, LeakError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder(tmp_path / "photos", {"ant": 10, "bee": 10})


def test_a_scan_describes_every_image(photos: Path) -> None:
    manifest = scan(photos)
    assert manifest.classes == ("ant", "bee")
    assert len(manifest.images) == 20
    for image in manifest.images:
        decoded = Image.open(manifest.file(image)).convert("RGB")
        assert image.path.startswith(manifest.classes[image.label] + "/")
        assert (image.width, image.height) == decoded.size
        assert image.sha256 == pixel_sha256(decoded)
        assert image.dhash == dhash(decoded)
        assert (image.box, image.mask, image.labelled) == (None, None, True)
    assert (manifest.problems, manifest.notes) == ((), ())


def test_without_a_test_folder_a_fifth_of_each_class_is_held_out(photos: Path) -> None:
    manifest = scan(photos)
    assert sorted(image.label for image in manifest.of("test")) == [0, 0, 1, 1]
    assert len(manifest.of("train")) == 16
    assert {i.path for i in scan(photos, seed=1).of("test")} != {i.path for i in manifest.of("test")}


def test_the_split_follows_pixels_and_not_names(photos: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(photos.rglob("*.png"), reverse=True)):
        target = tmp_path / "renamed" / path.parent.name / f"x{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    tested = [{image.sha256 for image in scan(root).of("test")} for root in (photos, tmp_path / "renamed")]
    assert tested[0] == tested[1]


def test_the_manifest_hash_depends_on_neither_hash_seed_nor_file_order(photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    files = sorted(photos.rglob("*.png"), key=lambda path: path.name[::-1])
    for path in files:
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.parent.name / path.name)
    code = "import sys; from finegan_aug.data.folder import scan; print(scan(sys.argv[1]).sha256)"
    found = {scan(photos).sha256}
    for number in range(5):
        env = {**os.environ, "PYTHONHASHSEED": str(number)}
        run = subprocess.run([sys.executable, "-c", code, copy], env=env, capture_output=True, text=True, check=True)
        found.add(run.stdout.strip())
    assert len(found) == 1


def test_a_separate_test_folder_is_the_test_split(photos: Path, tmp_path: Path) -> None:
    test = folder(tmp_path / "test", {"ant": 2, "bee": 1}, first=100)
    manifest = scan(photos, test_data=test)
    assert len(manifest.of("train")) == 20
    assert [manifest.file(image).parent.parent for image in manifest.of("test")] == [test] * 3


def test_boxes_come_from_corners_sizes_or_cub(photos: Path, tmp_path: Path) -> None:
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "corners.csv").write_text("path,x1,y1,x2,y2\r\n" + "".join(f"{n},4,5,20,30\r\n" for n in names))
    (tmp_path / "sizes.csv").write_text("\ufeffpath,x,y,w,h\n" + "".join(f"{n},4,5,16,25\n" for n in names))
    (tmp_path / "images.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(names)))
    (tmp_path / "bounding_boxes.txt").write_text("".join(f"{i} 4.0 5.0 16.0 25.0\n" for i in range(len(names))))
    for source in (tmp_path / "corners.csv", tmp_path / "sizes.csv", tmp_path):
        assert {image.box for image in scan(photos, boxes=source).images} == {(4.0, 5.0, 20.0, 30.0)}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("ant/0000.png,40,5,60,30", "E301 ant/0000.png: the box 40, 5, 60, 30 leaves the image of 48 x 36 pixels"),
        ("ant/0000.png,-9,5,20,30", "leaves the image of 48 x 36 pixels"),
        ("ant/0000.png,20,5,20,30", "the box 20, 5, 20, 30 is empty, x1 < x2 and y1 < y2 must hold"),
        ("ant/0000.png,1,2,3", "line 2: a box must be four numbers, found '1,2,3'"),
        ("ant/0000.png,1,2,nan,4", "line 2: a box must be four finite numbers"),
        ("ant/0000.png,1,2,3,4\nant/0000.png,1,2,3,4", "line 3: 'ant/0000.png' has two boxes, an image has one"),
        ("bee/0010.png,1,2,3,4", "E302 ant/0000.png: the image has no box, boxes are given"),
    ],
)
@pytest.mark.fault("bad input: boxes and masks")
def test_wrong_boxes_name_their_image_or_line(photos: Path, tmp_path: Path, row: str, words: str) -> None:
    (tmp_path / "b.csv").write_text(f"path,x1,y1,x2,y2\n{row}\n")
    with pytest.raises(DataError) as caught:
        scan(photos, boxes=tmp_path / "b.csv")
    assert words in caught.value.cause


@pytest.mark.fault("bad input: boxes and masks")
def test_a_line_of_cub_without_a_path_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cub").mkdir()
    (tmp_path / "cub" / "images.txt").write_text("1 ant/0000.png\n2\n")
    (tmp_path / "cub" / "bounding_boxes.txt").write_text("1 4 5 16 25\n")
    with pytest.raises(DataError) as caught:
        scan(photos, boxes=tmp_path / "cub")
    assert caught.value.cause == f"{tmp_path / 'cub' / 'images.txt'} line 2: must be `number path`, found '2'"
    assert caught.value.remedy == "restore the file from its download"


def test_of_a_name_without_end_the_beginning_is_shown(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cub").mkdir()
    (tmp_path / "cub" / "images.txt").write_text("1 ant/0000.png\n")
    (tmp_path / "cub" / "bounding_boxes.txt").write_text(f"{'9' * 10_000} 4 5 16 25\n")
    (tmp_path / "boxes.csv").write_text("path,x1,y1,x2,y2\n" + f"{'a' * 10_000},4,5,16,25\n" * 2)
    for source, words in (
        ("cub", f"image {'9' * 78} is not in images.txt"),
        ("boxes.csv", f"'{'a' * 79} has two boxes"),
    ):
        with pytest.raises(DataError) as caught:
            scan(photos, boxes=tmp_path / source)
        assert words in caught.value.cause
        assert len(caught.value.cause) < 500


def test_a_box_beyond_the_edge_by_rounding_is_clipped(photos: Path, tmp_path: Path) -> None:
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "b.csv").write_text("path,x,y,w,h\n" + "".join(f"{n},0,0,48.6,36.6\n" for n in names))
    assert {image.box for image in scan(photos, boxes=tmp_path / "b.csv").images} == {(0.0, 0.0, 48.0, 36.0)}


@pytest.mark.fault("bad input: boxes and masks")
def test_a_wrong_header_of_boxes_says_which_are_read(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("file,left,top\n")
    with pytest.raises(DataError, match="the header must be path,x1,y1,x2,y2 or path,x,y,w,h, found 'file,left,top'"):
        scan(photos, boxes=tmp_path / "b.csv")


def masks_of(photos: Path, root: Path, change: Callable[[Image.Image], Image.Image] = lambda mask: mask) -> Path:
    for path in photos.rglob("*.png"):
        mask = Image.new("L", (48, 36), 127)
        mask.paste(128, (10, 6, 31, 20))
        target = root / path.relative_to(photos).with_suffix(".bmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        change(mask).save(target)
    return root


def test_masks_of_any_suffix_are_found_and_give_the_box(photos: Path, tmp_path: Path) -> None:
    manifest = scan(photos, masks=masks_of(photos, tmp_path / "masks"))
    assert {image.box for image in manifest.images} == {(10.0, 6.0, 31.0, 20.0)}
    for image in manifest.images:
        assert manifest.mask_file(image) == tmp_path / "masks" / Path(image.path).with_suffix(".bmp")


def test_a_given_box_wins_over_the_mask(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("path,x1,y1,x2,y2\nant/0000.png,1,2,3,4\n")
    manifest = scan(photos, boxes=tmp_path / "b.csv", masks=masks_of(photos, tmp_path / "masks"))
    assert {i.box for i in manifest.images if i.path == "ant/0000.png"} == {(1.0, 2.0, 3.0, 4.0)}
    assert {i.box for i in manifest.images if i.path != "ant/0000.png"} == {(10.0, 6.0, 31.0, 20.0)}


@pytest.mark.fault("bad input: boxes and masks")
def test_wrong_masks_name_their_image(photos: Path, tmp_path: Path) -> None:
    for name, change, words in (
        ("small", lambda mask: mask.resize((10, 10)), "E304 ant/0000.png: image and mask must have one size"),
        ("empty", lambda mask: mask.point(lambda value: value // 2), "its mask has no pixel above 127"),
    ):
        with pytest.raises(DataError, match=words):
            scan(photos, masks=masks_of(photos, tmp_path / name, change))
    (tmp_path / "small" / "ant" / "0000.bmp").unlink()
    with pytest.raises(DataError, match=r"E303 ant/0000.png: the image has no mask, masks are given"):
        scan(photos, masks=tmp_path / "small")


@pytest.mark.fault("bad input: folders")
def test_a_bad_image_stops_the_scan_or_is_quarantined(photos: Path) -> None:
    (photos / "ant" / "0000.png").write_bytes(b"")
    (photos / "bee" / "0010.png").write_bytes(b"<html>")
    with pytest.raises(DataError) as caught:
        scan(photos)
    assert caught.value.cause == "2 of 20 images cannot be used, the first is E101 ant/0000.png: the file is empty"
    assert "--on-bad-image quarantine skips them" in caught.value.remedy
    manifest = scan(photos, on_bad_image="quarantine")
    assert len(manifest.images) == 18
    assert [line.split(":")[0] for line in manifest.problems] == ["E101 ant/0000.png", "E102 bee/0010.png"]


@pytest.mark.parametrize(
    ("counts", "cause"),
    [
        ({}, "E201 {root} must hold class folders with images, found no usable image in 0 folders"),
        ({"ant": 0, "bee": 0}, "E201 {root} must hold class folders with images, found no usable image in 2 folders"),
        ({"ant": 5}, "E202 {root} must hold at least two class folders, found ant alone"),
        ({"ant": 5, "bee": 1}, "E203 class bee of {root} must hold at least 2 images, found 1"),
        ({"ant": 5, "bee": 0}, "E205 class bee of {root} holds no usable image"),
    ],
)
@pytest.mark.fault("bad input: folders")
def test_folders_that_cannot_train_a_classifier_are_refused(tmp_path: Path, counts: dict[str, int], cause: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    folder(root, counts)
    with pytest.raises(DataError) as caught:
        scan(root)
    assert caught.value.cause == cause.format(root=root)


@pytest.mark.fault("bad input: folders")
def test_a_missing_folder_and_split_folders_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the data must be a folder of class folders, .*nowhere: No such file"):
        scan(tmp_path / "nowhere")
    folder(tmp_path / "both", {"train": 1, "val": 1})
    with pytest.raises(DataError, match=r"must be classes, found splits: train, val; give --data .*both/train"):
        scan(tmp_path / "both")


@pytest.mark.fault("bad input: folders")
def test_different_classes_in_training_and_test_show_both_lists(photos: Path, tmp_path: Path) -> None:
    test = folder(tmp_path / "test", {"ant": 2, "wasp": 2}, first=100)
    with pytest.raises(DataError, match=r"the same classes, found \[ant, bee\] and \[ant, wasp\]; rename"):
        scan(photos, test_data=test)


@pytest.mark.fault("bad input: folders")
def test_hidden_system_and_other_files_are_skipped_with_a_note(photos: Path) -> None:
    for name in (".cache", "__MACOSX", "@eaDir"):
        folder(photos / name, {"x": 1})
    (photos / "readme.txt").write_text("hello")
    (photos / "ant" / "Thumbs.db").write_text("hello")
    (photos / "ant" / "._0000.png").write_text("hello")
    (photos / "bee" / "phone.heic").write_text("hello")
    manifest = scan(photos)
    assert len(manifest.images) == 20
    text = "\n".join(manifest.notes)
    for name in (".cache", "__MACOSX", "@eaDir", "readme.txt", "ant/Thumbs.db", "ant/._0000.png"):
        assert f"skipped {name}: hidden, a system file, a link or not an image" in text
    assert "W104 bee/phone.heic: the format .heic is not read" in text


def test_images_may_lie_deep_inside_a_class(photos: Path) -> None:
    (photos / "ant" / "garden" / "2020").mkdir(parents=True)
    os.rename(photos / "ant" / "0000.png", photos / "ant" / "garden" / "2020" / "a b ü.png")
    manifest = scan(photos)
    assert "ant/garden/2020/a b ü.png" in {image.path for image in manifest.images if image.label == 0}


@pytest.mark.fault("bad input: folders")
def test_a_link_loop_multiplies_nothing(photos: Path) -> None:
    (photos / "ant" / "loop").symlink_to(photos)
    (photos / "cat").symlink_to(photos / "bee")
    os.link(photos / "bee" / "0010.png", photos / "bee" / "hard.png")
    manifest = scan(photos)
    assert len(manifest.images) == 21
    assert manifest.classes == ("ant", "bee")


@pytest.mark.fault("bad input: folders")
def test_links_out_of_the_folder_and_broken_links_are_refused(photos: Path, tmp_path: Path) -> None:
    picture(99).save(tmp_path / "secret.png")
    (photos / "ant" / "out.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"E108 ant/out.png: the link leaves the folder; copy the file"):
        scan(photos)
    (photos / "ant" / "out.png").unlink()
    (photos / "ant" / "broken.png").symlink_to(photos / "nowhere.png")
    with pytest.raises(DataError, match=r"E106 ant/broken.png: the link is broken"):
        scan(photos)


@pytest.mark.fault("bad input: folders")
def test_file_names_that_no_manifest_could_hold_are_refused(photos: Path) -> None:
    os.rename(photos / "ant" / "0000.png", photos / "ant" / "line\nbreak.png")
    with pytest.raises(DataError) as caught:
        scan(photos)
    assert "E107 ant/line\\nbreak.png: a file name must not hold control characters" in str(caught.value)


@pytest.mark.fault("bad input: folders")
def test_class_names_are_composed_and_twins_in_case_are_noted(photos: Path) -> None:
    folder(photos, {"Bee": 3, "cafe\u0301": 3}, first=50)
    manifest = scan(photos)
    assert manifest.classes == ("Bee", "ant", "bee", "caf\u00e9")
    assert any("W205 bee: the class names Bee and bee differ in case alone" in note for note in manifest.notes)
    assert all(manifest.file(image).exists() for image in manifest.images)


@pytest.mark.fault("bad input: folders")
def test_two_folders_that_spell_one_class_in_two_ways_are_one_class_with_a_note(photos: Path) -> None:
    folder(photos, {"caf\u00e9": 3, "cafe\u0301": 3}, first=50)
    manifest = scan(photos)
    assert manifest.classes == ("ant", "bee", "caf\u00e9")
    assert len([image for image in manifest.images if image.label == 2]) == 6
    assert manifest.notes == (
        "W206 caf\u00e9: two folders spell this class with different characters, they were taken as one; "
        "merge the folders",
    )


@pytest.mark.fault("bad input: folders")
def test_a_folder_that_cannot_be_listed_is_an_error_and_not_fewer_images(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rights os.walk skips a folder in silence. Simulated, because some users may read everything."""
    folder(photos / "ant", {"more": 3}, first=60)
    scandir = os.scandir

    def forbidden(path: str | Path) -> object:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(
        DataError, match=r"E106 ant/more: the folder cannot be read: Permission denied; restore its per"
    ):
        scan(photos)


def test_an_exact_copy_in_both_folders_is_a_leak(photos: Path, tmp_path: Path) -> None:
    test = folder(tmp_path / "test", {"ant": 2, "bee": 2}, first=100)
    picture(3).save(test / "bee" / "copy.bmp")
    with pytest.raises(LeakError, match=r"E401 1 test images are also training images, the first is bee/copy.bmp"):
        scan(photos, test_data=test)


def test_a_near_copy_in_both_folders_is_listed(photos: Path, tmp_path: Path) -> None:
    test = folder(tmp_path / "test", {"ant": 2, "bee": 2}, first=100)
    ImageOps.mirror(picture(3).resize((96, 72), Image.Resampling.BICUBIC)).save(test / "bee" / "copy.png")
    notes = scan(photos, test_data=test).notes
    assert len(notes) == 1
    assert notes[0].startswith("W402 bee/copy.png: the test image looks like the training image ant/0003.png")


@pytest.mark.fault("leaks: near copies never straddle the split")
def test_near_copies_never_straddle_the_split(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", {"ant": 30, "bee": 30})
    for number in range(0, 60, 3):
        name = "ant" if number < 30 else "bee"
        ImageOps.mirror(picture(number)).save(root / name / f"{number:04d}_m.png")
        picture(number).save(root / name / f"{number:04d}_same.bmp")
    for seed in range(5):
        manifest = scan(root, seed=seed, test_share=0.3)
        split_of = {Path(image.path).stem: image.split for image in manifest.images}
        for number in range(0, 60, 3):
            assert len({split_of[f"{number:04d}{suffix}"] for suffix in ("", "_m", "_same")}) == 1
        assert len(manifest.of("test")) == pytest.approx(0.3 * len(manifest.images), abs=3)
