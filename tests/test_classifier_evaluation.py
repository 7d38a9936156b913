"""Scores against scikit-learn and torchmetrics, known answers, and what is kept of every prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from coloured_images import ColouredImages
from sklearn.metrics import confusion_matrix, f1_score
from torchmetrics.functional.classification import multiclass_calibration_error

from classifier.config import ClassifierConfig
from classifier.evaluation import classification_metrics, evaluate_classifier, load_classifier, predict
from classifier.training import train_classifier
from finegan_aug.errors import DataError
from finegan_aug.randomness import normals, seed_for


def random_case(seed: int, count: int = 200, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    logits = normals(seed_for(seed, "logits"), range(count), classes + 1)
    labels = (np.abs(logits[:, -1]) * 2.9).astype(int) % (classes - 1)  # the last class has no image
    return logits[:, :-1] + 1.5 * np.eye(classes)[labels], labels


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_scikit_learn_and_torchmetrics(seed: int) -> None:
    logits, labels = random_case(seed)
    found, guess = classification_metrics(logits, labels), logits.argmax(1)
    assert found["accuracy"] == pytest.approx((guess == labels).mean(), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, guess, average="macro"), abs=1e-12)
    assert found["confusion"] == confusion_matrix(labels, guess, labels=range(7)).tolist()
    expected = multiclass_calibration_error(torch.tensor(logits), torch.tensor(labels), num_classes=7, n_bins=15)
    assert found["ece"] == pytest.approx(expected.item(), abs=1e-6)
    by_class = [(guess[labels == c] == c).mean() for c in range(6)]
    assert found["per_class_accuracy"] == [pytest.approx(share) for share in by_class] + [None]
    assert found["worst_class_accuracy"] == pytest.approx(min(by_class))
    hits = [label in np.argsort(row)[-5:] for row, label in zip(logits, labels, strict=True)]
    assert found["top5"] == pytest.approx(np.mean(hits))


def test_perfect_and_confident_predictions_have_no_error() -> None:
    found = classification_metrics(100 * np.eye(4), np.arange(4))
    assert (found["accuracy"], found["macro_f1"], found["worst_class_accuracy"]) == (1.0, 1.0, 1.0)
    assert found["ece"] == pytest.approx(0.0, abs=1e-9)


def test_sure_and_always_wrong_is_the_worst_calibration() -> None:
    assert classification_metrics(100 * np.eye(2), np.array([1, 0]))["ece"] == pytest.approx(1.0)


def test_the_order_of_images_and_a_shift_of_the_logits_change_nothing() -> None:
    logits, labels = random_case(9)
    order = np.argsort(logits[:, 0])
    first, second = classification_metrics(logits, labels), classification_metrics(logits[order] + 3, labels[order])
    assert first.pop("ece") == pytest.approx(second.pop("ece"))
    assert first == second


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"evaluation needs logits \[N, C\] and labels \[N\] with N >= 1, found \(0, 3\)"
    ):
        classification_metrics(np.zeros((0, 3)), np.zeros(0))


def test_an_evaluated_run_keeps_every_prediction_under_the_name_of_its_image(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = ClassifierConfig(model="test_efficientnet", resolution=24, steps=2, batch_size=6, threads=1)
    data = ColouredImages(12)
    run = train_classifier(config, data, tmp_path / "run", classes=data.classes)
    names = [f"{index:064x}" for index in range(12)]
    found = evaluate_classifier(run, data, image_ids=names)
    with np.load(run / "predictions.npz", allow_pickle=False) as kept:
        assert kept["labels"].dtype == np.int64
        assert kept["logits"].dtype == np.float32
        assert kept["image"].tolist() == names
        assert kept["labels"].tolist() == data.targets
        assert found == classification_metrics(kept["logits"], kept["labels"])


def test_an_image_is_judged_alike_alone_and_in_a_batch(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = ClassifierConfig(model="test_efficientnet", resolution=24, steps=1, batch_size=6, threads=1)
    data = ColouredImages(70)  # more than one batch
    run = train_classifier(config, data, tmp_path / "run", classes=data.classes)
    model = load_classifier(run)[1]
    together, _ = predict(model, data, 24)
    alone, _ = predict(model, [data[68]], 24)
    np.testing.assert_allclose(alone[0], together[68], atol=1e-5)
