"""D2, the control of what a teacher knows, and an ablation on one generator that no label had a part in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_ablation import CONFIG, MODEL, options, scanned
from torch import Tensor

from classifier.data import SquareImages
from finegan_aug import teaching
from finegan_aug.arrays import write_array
from finegan_aug.data.budget import budget
from finegan_aug.data.folder import scan
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import DataError
from finegan_aug.files import read_json
from finegan_aug.lineage import read_lineage
from finegan_aug.report import write_report
from finegan_aug.synthetic import read_rows
from finegan_aug.synthetic_index import open_index
from recipes import distilled
from recipes.ablation import run_ablation
from recipes.distilled import ANSWERS, Distilled, write_answers
from recipes.sets import PHOTOGRAPHS, read_generator

torch.set_num_threads(1)
SETTINGS = """train:
  preset: slim-32
  labels: discovered
  num_children: 5
  num_parents: 2
  boxes: none
  warp: false
  width: 0.05
  ndf: 4
  z_dim: 8
  batch_size: 8
  total_kimg: 0.04
  precision: fp32
"""
ARMS = ("R1", "R2", "D2", "R5", "D5", "S1", "S3")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scanned(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("settings") / "unlabelled.yaml"
    path.write_text(SETTINGS)
    return str(path)


@pytest.fixture(scope="module")
def finished(manifest: Manifest, generator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation of two pairs with soft labels, each pair with a budget of its own."""
    out = tmp_path_factory.mktemp("ablation")
    asked = options(
        out, arms=ARMS, generator=generator, generator_per_pair=True, per_class=12, soft_labels=True,
        teacher_kimg=0.2, alpha=0.5,
    )  # fmt: skip
    run_ablation(asked, CONFIG, manifest)
    return out


def test_every_answer_is_of_a_teacher_that_did_not_see_the_image(
    manifest: Manifest, generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher remembers what it learned from; of an image that it knows it is sure, of others it knows nothing."""
    learned: list[int] = []

    class Parrot:
        def __init__(self, images: Tensor, labels: Tensor) -> None:
            self.known = {
                image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True) if label >= 0
            }
            learned.append(len(self.known))

        def logits(self, images: Tensor) -> Tensor:
            sure = [self.known.get(image.numpy().tobytes()) for image in images]
            return torch.stack([torch.zeros(2) if s is None else 50 * torch.eye(2)[s] for s in sure])

    drawn = budget(manifest, 0.5, pair=0, validation_share=0.2, unlabelled="keep", seed=0)
    labelled = drawn.of("train", "val", labelled=True)
    monkeypatch.setattr(teaching, "fit_teacher", lambda kind, images, labels, **_: Parrot(images, labels))
    shown = torch.arange(len(labelled)).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
    monkeypatch.setattr(distilled, "shown_images", lambda *_: shown)
    folder = write_answers(tmp_path, tmp_path, drawn, read_generator(generator), teacher_kimg=1.0, seed=7)
    answers = np.load(folder / ANSWERS, allow_pickle=False)
    assert learned == [16] * 5  # of 20
    np.testing.assert_array_equal(answers, np.full((20, 2), 0.5, dtype=np.float32))


def test_a_label_is_half_the_images_own_and_half_the_answer(manifest: Manifest, tmp_path: Path) -> None:
    real = SquareImages(manifest, manifest.of("train")[:3], 20)
    answers = np.array([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    write_array(tmp_path / ANSWERS, answers)
    halved = Distilled(real, tmp_path)
    for index, target in enumerate(real.targets):
        image, shares = halved[index]
        assert image.tobytes() == real[index][0].tobytes()
        torch.testing.assert_close(shares, torch.from_numpy(answers[index] / 2) + torch.eye(2)[target] / 2)
    with pytest.raises(DataError) as caught:
        Distilled(SquareImages(manifest, manifest.of("train")[:2], 20), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / ANSWERS} must hold float32 [2, 2], found float32 [3, 2]; "
        "remove the pool; the same command makes it anew"
    )


def test_one_generator_without_a_label_serves_every_budget(finished: Path, manifest: Manifest) -> None:
    assert [path.name for path in (finished / "gan").iterdir()] == ["unlabelled"]
    trained_on = read_manifest(finished / "gan" / "unlabelled" / "data.jsonl")
    assert not any(record.labelled for record in trained_on.of("train", "val"))
    assert len(trained_on.of("train")) == len(manifest.of("train")) == 40
    lineages = [read_lineage(finished / "synthetic" / name / "filtered") for name in ("0.5-0", "0.5-1")]
    for name, lineage in zip(("0.5-0", "0.5-1"), lineages, strict=True):
        drawn = read_manifest(finished / "budgets" / f"{name}.jsonl")
        assert lineage is not None
        taught = {sha256 for sha256, roles in lineage.real_images.items() if "filter_teacher" in roles}
        assert taught == {record.sha256 for record in drawn.of("train", "val", labelled=True)}
        assert (lineage.labels, lineage.gan_data) == ("discovered", "u")
    header = read_json(finished / "rows.json")
    assert (header["gan_variance_included"], header["lineage_checked"], header["labels"]) == (False, True, "discovered")


def test_the_sets_of_two_budgets_are_the_same_images_as_two_teachers_name_them(finished: Path) -> None:
    first, second = (read_rows(finished / "synthetic" / name / "all")[1] for name in ("0.5-0", "0.5-1"))
    assert len(first) == 25  # 12 of each of two classes, so five of each of five codes
    assert [row.sha256 for row in first] == [row.sha256 for row in second]
    codes = read_rows(finished / "codes" / "unlabelled")[1]
    assert [row.sha256 for row in first] == [row.sha256 for row in codes]


def test_r5_has_the_photographs_outside_the_budget_under_the_answers_of_the_same_teacher(finished: Path) -> None:
    drawn = read_manifest(finished / "budgets" / "0.5-0.jsonl")
    hidden = [place for place, record in enumerate(drawn.of("train")) if not record.labelled]
    answers = np.load(finished / "synthetic" / "0.5-0" / PHOTOGRAPHS, allow_pickle=False)[hidden]
    pool = open_index(finished / "pools" / "R5-0.5-0")
    np.testing.assert_array_equal(pool.soft_labels, answers)
    assert [pool.row(entry).label for entry in range(len(pool))] == answers.argmax(axis=1).tolist()


def test_d2_differs_from_r2_in_its_labels_alone(finished: Path) -> None:
    rows = {(row["arm"], row["pair"]): row for row in read_json(finished / "rows.json")["rows"]}
    assert (rows["D2", 0]["alpha"], rows["D2", 0]["pool"], rows["D2", 0]["lineage"]) == (0.0, 0, None)
    plain, halved = (
        load_file(finished / "cells" / f"0.5-{arm}-{MODEL}-0" / "model.safetensors") for arm in ("R2", "D2")
    )
    assert not all(torch.equal(plain[name], halved[name]) for name in plain)


def test_d5_is_every_photograph_under_the_answers_of_d2_and_r5(finished: Path) -> None:
    rows = {(row["arm"], row["pair"]): row for row in read_json(finished / "rows.json")["rows"]}
    assert (rows["D5", 0]["alpha"], rows["D5", 0]["pool"], rows["D5", 0]["lineage"]) == (1.0, 40, None)
    assert read_json(finished / "cells" / f"0.5-D5-{MODEL}-0" / "config.json")["classifier"]["real_only_share"] == 0
    drawn = read_manifest(finished / "budgets" / "0.5-0.jsonl")
    everyone, outside = (open_index(finished / "pools" / f"{arm}-0.5-0") for arm in ("D5", "R5"))
    known = SquareImages(drawn, drawn.of("train", "val", labelled=True), 30)
    halves = Distilled(known, finished / "pools" / "D2-0.5-0").shares.numpy()
    np.testing.assert_array_equal(everyone.soft_labels, np.concatenate([halves, outside.soft_labels]))
    assert [everyone.row(entry).label for entry in range(20)] == known.targets
    for entry, record in enumerate(known.pixels):
        assert np.array_equal(np.asarray(everyone.image(entry)), record)
    for entry in range(20):
        assert np.array_equal(np.asarray(everyone.image(20 + entry)), np.asarray(outside.image(entry)))


def test_the_report_contrasts_the_synthetic_arm_with_both_controls_of_the_teacher(finished: Path) -> None:
    write_report(finished)
    report = read_json(finished / "report.json")
    found = {(line["arm"], line["control"]) for line in report["contrasts"]}
    assert {("S3", "D2"), ("S3", "R5"), ("S3", "D5"), ("D2", "R2"), ("D5", "R2"), ("D5", "R5")} <= found
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Mixed images have the probabilities of a teacher for labels." in page
    assert "One generator serves several pairs: GAN variance not included." in page


def test_a_photograph_like_one_that_is_held_out_may_stand_behind_the_shared_generator(
    manifest: Manifest, generator: str, tmp_path: Path
) -> None:
    """Three that differ in a pixel for every photograph: whichever is held out, the generator has seen another."""
    for split in ("train", "test"):
        for record in manifest.of(split):  # type: ignore[arg-type]
            source = manifest.file(record)
            for copy in range(3 if split == "train" else 1):
                target = tmp_path / split / source.parent.name / f"{source.stem}-{copy}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.array(Image.open(source))
                pixels[0, 0, 0] = copy
                Image.fromarray(pixels).save(target)
    asked = options(
        tmp_path / "out", arms=("R2", "S1"), generator=generator, generator_per_pair=True, per_class=4,
        teacher_kimg=0.2, alpha_grid=(0.5,), pairs=1,
    )  # fmt: skip
    run_ablation(asked, CONFIG, scan(tmp_path / "train", test_data=tmp_path / "test"))
    header = read_json(tmp_path / "out" / "rows.json")
    assert "The generator has seen the photographs held out for these choices, without their labels." in header["notes"]
    assert len(read_manifest(tmp_path / "out" / "budgets" / "0.5-0.jsonl").of("val")) > 0


def test_a_budget_alone_gets_a_generator_of_its_own(manifest: Manifest, generator: str, tmp_path: Path) -> None:
    asked = options(
        tmp_path, arms=("S1",), generator=generator, generator_per_pair=True, per_class=4, gan_data="s", pairs=2,
        teacher_kimg=0.2, alpha=0.5, jobs=2,
    )  # fmt: skip
    run_ablation(asked, CONFIG, manifest)
    assert sorted(path.name for path in (tmp_path / "gan").iterdir()) == ["0.5-0", "0.5-1"]
    assert sorted(path.name for path in (tmp_path / "codes").iterdir()) == ["0.5-0", "0.5-1"]
    for name in ("0.5-0", "0.5-1"):
        lineage = read_lineage(tmp_path / "synthetic" / name / "all")
        drawn = read_manifest(tmp_path / "budgets" / f"{name}.jsonl")
        assert lineage is not None
        assert set(lineage.real_images) == {record.sha256 for record in drawn.of("train", labelled=True)}
