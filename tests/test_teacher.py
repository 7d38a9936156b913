"""A teacher fitted on real images drops synthetic images of the wrong class and copies, and is named in the lineage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finegan_aug.data.folder import scan
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import DataError
from finegan_aug.lineage import Lineage, read_lineage, write_lineage
from finegan_aug.synthetic import read_rows
from finegan_aug.teacher import filter_with_teacher

COLOURS = {"amber": (200, 120, 20), "blue": (20, 60, 200)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def picture(colour: str, number: int) -> Image.Image:
    """Coarse noise around a colour, another one for each number."""
    noise = np.random.default_rng([number, len(colour)]).normal(0, 40, (8, 8, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST)


@pytest.fixture
def photographs(tmp_path: Path) -> Manifest:
    for colour in COLOURS:
        folder = tmp_path / "photographs" / colour
        folder.mkdir(parents=True)
        for number in range(20):
            picture(colour, number).save(folder / f"{number:02}.png")
    return scan(tmp_path / "photographs")


@pytest.fixture
def synthetic(tmp_path: Path, photographs: Manifest) -> Path:
    """Ten good images of each class, one blue image among the amber ones, and one copy of a training image."""
    root = tmp_path / "synthetic"
    for colour in COLOURS:
        (root / colour).mkdir(parents=True)
        for number in range(10):
            picture(colour, 100 + number).save(root / colour / f"{number:02}.png")
    picture("blue", 200).save(root / "amber" / "wrong.png")
    trained = next(record for record in photographs.of("train") if record.label == 1)
    Image.open(photographs.file(trained)).save(root / "blue" / "copy.png")
    return root


def test_a_wrong_class_and_a_copy_are_dropped_and_the_lineage_names_the_teachers_images(
    synthetic: Path, photographs: Manifest
) -> None:
    generator = {"kind": "none", "config_sha256": "0" * 64, "checkpoint_sha256": "0" * 64, "seen_images": 0}
    write_lineage(synthetic, Lineage({}, photographs.classes, photographs.sha256, generator, "tied", "s"))
    report = filter_with_teacher(
        synthetic, photographs, boxes="none", teacher_kimg=1, top_k=1, drop_lowest_confidence=0
    )
    reasons = {Path(row.file).name: row.dropped_by for row in read_rows(synthetic)[1] if not row.kept}
    assert reasons["wrong.png"] == "teacher_top_k"
    assert reasons["copy.png"] == "near_duplicate"
    assert (report.total, report.kept) == (22, 22 - len(reasons))
    assert list(reasons.values()).count("teacher_top_k") == 1
    # So near to one of 32 training images as these are to each other, a few good ones lie by chance.
    assert report.kept >= 15
    lineage = read_lineage(synthetic)
    assert lineage is not None
    assert lineage.real_images == {record.sha256: ("filter_teacher",) for record in photographs.of("train")}


def test_other_classes_are_refused(tmp_path: Path, synthetic: Path, photographs: Manifest) -> None:
    (synthetic / "blue").rename(synthetic / "cyan")
    with pytest.raises(DataError) as caught:
        filter_with_teacher(synthetic, photographs, boxes="none")
    assert caught.value.cause == "the synthetic set must have the classes ['amber', 'blue'], found ['amber', 'cyan']"
    assert caught.value.remedy == "name the photographs its generator was trained on"
