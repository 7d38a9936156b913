"""Photographs of no known class: scanned beside the others, kept from the test, never given a class by a budget."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from blurred_pictures import folder, picture
from PIL import ImageOps
from tiny_runs import tiny_config

from classifier.data import SquareImages
from finegan_aug import pseudo_labels
from finegan_aug.cli import main
from finegan_aug.data.budget import budget, folds
from finegan_aug.data.doctor import run_doctor
from finegan_aug.data.doctor_text import format_report
from finegan_aug.data.folder import load_data, scan
from finegan_aug.data.manifest import Manifest, read_manifest, write_manifest
from finegan_aug.data.row_fields import NO_CLASS
from finegan_aug.errors import ConfigError, DataError, LeakError
from finegan_aug.files import read_json
from finegan_aug.lineage import read_lineage
from finegan_aug.mixing import SyntheticMixDataset
from finegan_aug.output_folder import ensure_apart
from finegan_aug.training import train


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 images of two classes."""
    return folder(tmp_path / "photos", {"ant": 10, "bee": 10})


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Six more: two beside each other, four deeper, in folders that are no classes."""
    folder(tmp_path / "more", {"2019": 2, "2020/spring": 2}, first=500)
    for number in (600, 601):
        picture(number).save(tmp_path / "more" / f"{number}.png")
    return tmp_path / "more"


def loose(manifest: Manifest) -> list[str]:
    return [image.path for image in manifest.images if image.label == NO_CLASS]


def test_a_scan_takes_them_for_training_without_a_class(photos: Path, more: Path) -> None:
    plain, manifest = scan(photos), scan(photos, unlabelled=more)
    assert loose(manifest) == sorted(
        ["2019/0500.png", "2019/0501.png", "2020/spring/0502.png", "2020/spring/0503.png", "600.png", "601.png"]
    )
    found = manifest.of("train", labelled=False)
    assert {(image.label, image.split, image.box, image.mask) for image in found} == {(-1, "train", None, None)}
    assert all(manifest.file(image).is_file() for image in manifest.images)
    # Everything else is as without them: the classes, the split, the order.
    assert [image for image in manifest.images if image.label != NO_CLASS] == list(plain.images)
    assert (manifest.classes, manifest.notes, manifest.problems) == (plain.classes, (), ())


def test_a_manifest_keeps_them_wherever_they_lie(photos: Path, more: Path, tmp_path: Path) -> None:
    manifest = scan(photos, unlabelled=more)
    write_manifest(manifest, tmp_path / "data.jsonl")
    read = read_manifest(tmp_path / "data.jsonl")
    assert (read.images, read.sha256) == (manifest.images, manifest.sha256)
    assert [read.file(image).read_bytes() for image in read.of("train", labelled=False)] == [
        (more / path).read_bytes() for path in loose(manifest)
    ]
    (more / "600.png").unlink()
    with pytest.raises(DataError, match=re.escape(f"'600.png' does not exist below {more}")):
        read_manifest(tmp_path / "data.jsonl")


def test_one_path_may_stand_in_both_folders(photos: Path, tmp_path: Path) -> None:
    folder(tmp_path / "more", {"ant": 1}, first=900)
    shutil.move(tmp_path / "more" / "ant" / "0900.png", tmp_path / "more" / "ant" / "0000.png")
    manifest = scan(photos, unlabelled=tmp_path / "more")
    write_manifest(manifest, tmp_path / "data.jsonl")
    twice = [image for image in read_manifest(tmp_path / "data.jsonl").images if image.path == "ant/0000.png"]
    assert len({manifest.file(image) for image in twice}) == len({image.sha256 for image in twice}) == 2


def test_what_has_a_class_or_looks_like_a_test_image_is_left_out_and_said(photos: Path, more: Path) -> None:
    plain = scan(photos)
    tested, trained = plain.file(plain.of("test")[0]), plain.file(plain.of("train")[0])
    shutil.copy(tested, more / "copy.png")
    shutil.copy(trained, more / "known.png")
    number = int(plain.of("test")[1].path[-8:-4])
    ImageOps.mirror(picture(number, 96, 72)).save(more / "flipped.png")
    manifest = scan(photos, unlabelled=more)
    assert len(loose(manifest)) == 6
    assert manifest.notes == (
        "1 unlabelled photographs left out, they also have a class",
        "2 unlabelled photographs left out, they look like test images",
    )


def test_they_are_kept_from_the_images_of_a_test_folder_too(photos: Path, more: Path, tmp_path: Path) -> None:
    folder(tmp_path / "test", {"ant": 2, "bee": 2}, first=40)
    shutil.copy(tmp_path / "test" / "bee" / "0043.png", more / "copy.png")
    picture(41, 96, 72).save(more / "larger.png")
    manifest = scan(photos, unlabelled=more, test_data=tmp_path / "test")
    assert len(loose(manifest)) == 6
    assert "2 unlabelled photographs left out, they look like test images" in manifest.notes


@pytest.mark.parametrize("place", ["photos/ant", "."])
def test_they_lie_apart_from_the_others(photos: Path, tmp_path: Path, place: str) -> None:
    top = (tmp_path / place).resolve()
    cause = f"the unlabelled photographs must lie apart from those with classes, found {top} and {photos}"
    with pytest.raises(DataError, match=f"^{re.escape(cause)}") as caught:
        scan(photos, unlabelled=tmp_path / place)
    assert caught.value.remedy == "move them into a folder of their own"


def test_a_folder_that_is_none_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        scan(photos, unlabelled=tmp_path / "nowhere")
    assert caught.value.cause == f"the unlabelled photographs must be a folder, found {tmp_path / 'nowhere'}"
    assert caught.value.remedy == "give a folder of images"


def test_a_damaged_one_stops_the_scan_or_is_set_aside(photos: Path, more: Path) -> None:
    (more / "torn.png").write_bytes((more / "600.png").read_bytes()[:100])
    with pytest.raises(DataError, match=r"1 of 27 images cannot be used, the first is E1\d\d torn.png"):
        scan(photos, unlabelled=more)
    manifest = scan(photos, unlabelled=more, on_bad_image="quarantine")
    assert (len(loose(manifest)), len(manifest.problems)) == (6, 1)


def test_a_manifest_names_its_own(photos: Path, more: Path, tmp_path: Path) -> None:
    write_manifest(scan(photos), tmp_path / "data.jsonl")
    with pytest.raises(DataError, match="a manifest names all its own folders, found unlabelled beside"):
        load_data(tmp_path / "data.jsonl", unlabelled=more)


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_budget_gives_them_no_class_and_holds_none_of_them_out(photos: Path, more: Path, fraction: float) -> None:
    manifest = scan(photos, unlabelled=more)
    kept = budget(manifest, fraction, pair=0, unlabelled="keep")
    assert loose(kept) == loose(manifest)
    assert all(image.label != NO_CLASS for image in kept.of("train", "val", "test", labelled=True))
    # The labelled images are those of the same draw without them.
    same = budget(scan(photos), fraction, pair=0, unlabelled="keep")
    assert kept.of("train", "val", labelled=True) == same.of("train", "val", labelled=True)
    assert loose(budget(manifest, fraction, pair=0)) == []
    for fold in folds(kept, 3, pair=0):
        assert loose(fold) == loose(manifest)
    with pytest.raises(DataError, match="a budget is drawn from the manifest of a scan"):
        budget(kept, 0.5, pair=0)


def test_the_doctor_looks_at_them(photos: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (more / "torn.png").write_bytes(b"no image")
    report = run_doctor(photos, unlabelled=more)
    assert (report.images, report.unlabelled, report.errors) == (20, 6, 1)
    assert "unlabelled: 6 training photographs of no known class" in format_report(report)
    (more / "torn.png").unlink()
    assert main(["doctor", str(photos), "--unlabelled-folder", str(more)]) == 0
    assert "unlabelled: 6 training photographs of no known class" in capsys.readouterr().out
    write_manifest(scan(photos, unlabelled=more), tmp_path / "data.jsonl")
    assert run_doctor(tmp_path / "data.jsonl").unlabelled == 6


def test_no_output_goes_into_their_folder(photos: Path, more: Path) -> None:
    with pytest.raises(ConfigError, match="--out must not lie inside the photographs"):
        ensure_apart(more / "runs", scan(photos, unlabelled=more))


def test_a_row_without_a_class_is_an_unlabelled_training_image(photos: Path, more: Path, tmp_path: Path) -> None:
    manifest = scan(photos, unlabelled=more)
    for change in ({"labelled": True}, {"split": "test"}, {"box": (0.0, 0.0, 9.0, 9.0)}):
        wrong = [replace(image, **change) if image.label == NO_CLASS else image for image in manifest.images]  # type: ignore[arg-type]
        write_manifest(replace(manifest, images=tuple(wrong)), tmp_path / "data.jsonl")
        with pytest.raises(DataError, match="an image without a class must be an unlabelled one of the split train"):
            read_manifest(tmp_path / "data.jsonl")


@pytest.fixture
def half(toy_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The drawn training images: two of each class in its folder, the other two in one heap."""
    for path in sorted((toy_folder / "train").rglob("*.png")):
        number = sum(1 for _ in (tmp_path / "some" / path.parent.name).glob("*"))
        place = tmp_path / "some" / path.parent.name / path.name
        if number >= 2:
            place = tmp_path / "heap" / f"{path.parent.name}-{path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return tmp_path / "some", tmp_path / "heap"


def test_a_generator_learns_from_them_and_its_images_may_be_mixed(
    half: tuple[Path, Path], toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudo_labels, "TEACHER_KIMG", 0.2)
    some, heap = half
    photographs = ["--test-data", str(toy_folder / "test"), "--unlabelled-folder", str(heap)]
    settings = "--preset slim-32 --width 0.05 --ndf 4 --z-dim 8 --num-parents 4 --batch-size 8 --boxes none"
    settings += " --total-kimg 0.032 --pseudo-labels 0 --modes-per-class 1"
    run, made = tmp_path / "run", tmp_path / "made"
    assert main(["train", str(some), *photographs, *settings.split(), "--out", str(run)]) == 0
    counts = read_json(run / "labels.json")
    assert (counts["labelled"], counts["named_by_teacher"], counts["without_label"]) == (24, 24, 0)
    assert main(["synthesize", str(run), "--per-class", "2", "--out", str(made)]) == 0

    manifest = load_data(some, test_data=toy_folder / "test", unlabelled=heap)
    lineage = read_lineage(made)
    assert lineage is not None
    heaped = {image.sha256 for image in manifest.of("train", labelled=False)}
    assert {sha256 for sha256, roles in lineage.real_images.items() if "unlabelled" in roles} == heaped
    assert (len(heaped), lineage.gan_data) == (24, "u")
    real = SquareImages(manifest, manifest.of("train", labelled=True), 32)
    assert SyntheticMixDataset(real, made, alpha=0.5, data_manifest=manifest).lineage_status == "checked"
    without = load_data(some, test_data=toy_folder / "test")
    with pytest.raises(LeakError, match="unlabelled images must lie in the training part"):
        SyntheticMixDataset(real, made, alpha=0.5, data_manifest=without)


def test_given_boxes_must_be_there_for_them_too(half: tuple[Path, Path], toy_folder: Path, tmp_path: Path) -> None:
    some, heap = half
    manifest = load_data(some, unlabelled=heap, masks=toy_folder / "train_masks")
    with pytest.raises(DataError) as caught:
        train(tiny_config(total_kimg=0.008), manifest, tmp_path / "run")
    cause = "boxes=given needs a box for every image, 24 of 36 have none, such as bird_hooded-00024.png"
    assert (caught.value.cause, caught.value.remedy) == (cause, "add the missing boxes or choose boxes=none")
