"""Which labels a training may use: its own, a confident teacher's, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config
from torch import Tensor

from finegan_aug import pseudo_labels
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.views import Crops
from finegan_aug.files import read_json
from finegan_aug.pseudo_labels import training_labels
from finegan_aug.small_cnn import SmallClassifier


class Teacher:
    """Sees the class that the first pixel tells, and is sure of it for even numbers of images."""

    def __init__(self, calls: list[dict[str, object]]) -> None:
        self.calls = calls

    def fit(self, images: Tensor, labels: Tensor, **settings: object) -> Teacher:
        self.calls.append({"images": images, "labels": labels, **settings})
        return self

    def save(self, folder: Path) -> None:
        folder.mkdir()

    def logits(self, images: Tensor) -> Tensor:
        confident = torch.arange(len(images)) % 2 == 0
        logits = torch.zeros(len(images), 12)
        logits[:, 7] = torch.where(confident, 20.0, 1.0)
        return logits


@pytest.fixture
def crops(toy_data: Manifest) -> Crops:
    """48 crops, of which every third has a label that may be used."""
    images = [replace(image, labelled=i % 3 == 0) for i, image in enumerate(toy_data.of("train"))]
    return build_crops(replace(toy_data, images=tuple(images)), resolution=32, boxes="given")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    monkeypatch.setattr(pseudo_labels, "fit_classifier", Teacher(found).fit)
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


def test_a_real_teacher_is_fitted_and_kept(crops: Crops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_labels, "TEACHER_KIMG", 0.128)
    labels = training_labels(tiny_config(pseudo_labels=0.01).resolve(12), crops, tmp_path)
    assert bool((labels >= 0).all())  # sure enough of everything
    teacher = SmallClassifier.load(tmp_path / "teacher")
    guess = teacher.logits(crops.objects_center_uint8(torch.arange(48))).argmax(dim=1)
    unknown = crops.labels < 0
    assert torch.equal(labels[unknown], guess[unknown])
    assert torch.equal(labels[~unknown], crops.labels[~unknown])
