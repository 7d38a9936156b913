"""The border between training and test: copies planted on the other side are found, whatever was done to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blurred_pictures import picture
from faults import held
from PIL import Image, ImageOps

from finegan_aug.data.doctor import run_doctor
from finegan_aug.data.folder import load_data
from finegan_aug.errors import LeakError

SIDES_PX = (144, 108)
Way = tuple[Callable[[Image.Image], Image.Image], str, dict[str, Any]]
WAYS: dict[str, Way] = {
    "exact": (lambda image: image, "bmp", {}),  # another format, the same pixels
    "re-encoded": (lambda image: image, "jpg", {"quality": 75}),
    "resized": (lambda image: image.resize((72, 54), Image.Resampling.LANCZOS), "png", {}),
    "mirrored": (ImageOps.mirror, "png", {}),
    "cropped": (lambda image: image.crop((7, 5, 137, 103)), "png", {}),  # nine tenths of each side
}
EACH = 10


def plant(root: Path) -> dict[str, str]:
    """root/train with 60 images, root/test with 20 others and ten copies of each way; copy -> original."""
    planted = {}
    for number in range(80):
        part, name = "train" if number < 60 else "test", ("ant", "bee")[number % 2]
        (root / part / name).mkdir(parents=True, exist_ok=True)
        picture(number, *SIDES_PX).save(root / part / name / f"{number}.png")
    for place, (way, (change, suffix, options)) in enumerate(WAYS.items()):
        for number in range(EACH * place, EACH * place + EACH):
            name = ("ant", "bee")[number % 2]
            copy = f"{name}/{way} {number}.{suffix}"
            change(picture(number, *SIDES_PX)).save(root / "test" / copy, **options)
            planted[copy] = f"{name}/{number}.png"
    return planted


@pytest.mark.fault
def test_copies_in_the_test_folder_are_found_in_all_four_ways(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Of mirrored ones nine of ten, exact ones as errors; crops, which no such hash promises to find, are counted."""
    planted = plant(tmp_path)
    report = run_doctor(tmp_path / "train", test_data=tmp_path / "test")
    found = {"E401": dict.fromkeys(WAYS, 0), "W402": dict.fromkeys(WAYS, 0)}
    false = 0
    for problem in report.problems:
        if problem.code in found:
            original = problem.cause.rsplit(" ", 1)[1]
            if planted.get(problem.path) == original:
                found[problem.code][problem.path.split("/")[1].split(" ")[0]] += 1
            else:
                false += 1
    assert found["E401"] == {**dict.fromkeys(WAYS, 0), "exact": EACH}
    held("leaks: exact copies across the split found", found["E401"]["exact"], EACH)
    held("leaks: re-encoded and resized copies found", found["W402"]["re-encoded"] + found["W402"]["resized"], 2 * EACH)
    held("leaks: mirrored copies found, nine of ten at least", min(found["W402"]["mirrored"], 9), 9)
    assert false <= 1  # of 4,150 pairs of different pictures
    record_property("crops found of 10", found["W402"]["cropped"])
    assert report.exit_code() == 3


@pytest.mark.fault("leaks: a test image that is also a training image")
def test_an_exact_copy_stops_the_training_and_a_near_one_is_noted(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    with pytest.raises(LeakError, match=r"E401 10 test images are also training images, .+ ant/exact 0\.bmp"):
        load_data(tmp_path / "train", test_data=tmp_path / "test")
    for copy in planted:
        if "exact" in copy:
            (tmp_path / "test" / copy).unlink()
    manifest = load_data(tmp_path / "train", test_data=tmp_path / "test")
    assert sum("W402" in note for note in manifest.notes) == 20  # the first ones,
    assert manifest.notes[20].endswith("more notes; `finegan-aug doctor` lists all")
