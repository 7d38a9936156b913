"""Evaluation rows: complete, honest about what they were computed from, right on known cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from finegan_aug import features
from finegan_aug.errors import DataError
from finegan_aug.evaluation import class_consistency, cluster_with_generated, evaluate_images, wilson_interval
from finegan_aug.features import Extractor
from finegan_aug.files import write_json
from finegan_aug.metrics import fid, inception_score, kid, prdc
from finegan_aug.randomness import permutation, seed_for, uniforms

torch.set_num_threads(1)

COLOURS = torch.tensor([[220, 40, 40], [40, 220, 40], [40, 40, 220], [200, 200, 40]])


def coloured(name: str, count: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """Noisy images in four colours, uint8 [N, 3, S, S], and the number of the colour."""
    labels = torch.arange(count) % 4
    noise = uniforms(seed_for(0, name), range(count), 3 * side * side).astype(np.float32)
    images = COLOURS[labels][:, :, None, None] + 60 * (torch.from_numpy(noise).view(count, 3, side, side) - 0.5)
    return images.clamp(0, 255).byte(), labels


def mean_colour(images: Tensor) -> Tensor:
    return images.float().mean((2, 3)) / 255


def by_colour(images: Tensor) -> Tensor:
    return -torch.cdist(images.float().mean((2, 3)), COLOURS.float())


COLOUR = Extractor("colour", "a" * 64, mean_colour, by_colour)
CORNERS = Extractor("corners", "b" * 64, lambda x: x[:, :, ::8, ::8].flatten(1).float() / 255)
KEYS = {"metric", "value", "interval", "std", "extractor", "extractor_sha256", "n_real", "n_fake", "split", "warnings"}


def test_every_row_names_its_extractor_counts_and_split_and_can_be_written_as_json(tmp_path: Path) -> None:
    real, fake = coloured("real", 80)[0], coloured("fake", 60)[0]
    rows = evaluate_images(real=real, fake=fake, extractors=[COLOUR, CORNERS], seed=0, split="val")
    assert all(set(row) == KEYS for row in rows)
    assert {(row["extractor"], row["extractor_sha256"]) for row in rows} == {
        ("colour", "a" * 64),
        ("corners", "b" * 64),
    }
    assert {(row["n_real"], row["n_fake"], row["split"]) for row in rows} == {(80, 60, "val")}
    common = ["fid", "kid", "precision", "recall", "density", "coverage"]
    assert [row["metric"] for row in rows] == [*common, "inception_score", "inception_score_real", *common]
    write_json(tmp_path / "evaluation.json", {"rows": rows})
    assert json.loads((tmp_path / "evaluation.json").read_text())["rows"] == rows


@pytest.mark.parametrize("batch_images", [1, 7])
@pytest.mark.fault("same bits: measures, whatever the size of batches and the order of images")
def test_the_batch_size_changes_no_measure(batch_images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = coloured("real", 150)[0], coloured("fake", 130)[0]
    expected = evaluate_images(real=real, fake=fake, extractors=[COLOUR, CORNERS], seed=0)
    asked, original = list[int](), features._batched

    def batched(function: Callable[[Tensor], Tensor], images: Tensor, usual: int) -> Tensor:
        asked.append(usual)
        return original(function, images, batch_images)

    monkeypatch.setattr(features, "_batched", batched)
    rows = evaluate_images(real=real, fake=fake, extractors=[COLOUR, CORNERS], seed=0)
    assert set(asked) == {64}
    assert [row["metric"] for row in rows] == [row["metric"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert (row["n_real"], row["n_fake"]) == (150, 130)
        assert row["value"] == pytest.approx(other["value"], rel=1e-9, abs=1e-12)


@pytest.mark.fault("same bits: measures, whatever the size of batches and the order of images")
def test_the_order_of_images_changes_no_measure_of_whole_sets() -> None:
    """Subsets and splits are chosen by place, so here they are the whole."""
    real, fake = (mean_colour(coloured(name, 90)[0]).numpy() for name in ("real", "fake"))
    logits = by_colour(coloured("fake", 90)[0]).numpy()

    def measures(order: np.ndarray) -> list[float]:
        pair = {"real": real[order[::-1]], "fake": fake[order]}
        whole = [fid(**pair), kid(**pair, subset_size=90, subsets=1).mean, inception_score(logits[order], 1).mean]
        return [*whole, *prdc(**pair, k=5)]

    expected = measures(np.arange(90))
    assert all(value != 0 for value in expected)
    for seed in range(3):
        assert measures(permutation(seed_for(seed, "order"), 90)) == pytest.approx(expected, rel=1e-9)


def test_rows_hold_the_measures_of_the_extractors_features() -> None:
    real, fake = coloured("real", 80)[0], coloured("fake", 60)[0].flip(1)
    rows = {row["metric"]: row for row in evaluate_images(real=real, fake=fake, extractors=[CORNERS], seed=5)}
    real_features, fake_features = CORNERS.features(real), CORNERS.features(fake)
    assert rows["fid"]["value"] == fid(real=real_features, fake=fake_features)
    distance = kid(real=real_features, fake=fake_features, seed=5)
    assert distance.interval is not None
    assert rows["kid"]["value"] == distance.mean
    assert rows["kid"]["interval"] == list(distance.interval)


def test_copies_of_the_real_images_are_perfect_and_one_repeated_image_is_not() -> None:
    real = coloured("real", 80)[0]
    copies = {r["metric"]: r["value"] for r in evaluate_images(real=real, fake=real, extractors=[COLOUR], seed=0)}
    assert copies["fid"] < 1e-6
    assert (copies["precision"], copies["recall"], copies["coverage"]) == (1, 1, 1)
    assert copies["inception_score"] == copies["inception_score_real"] > 3.3
    collapsed = real[:1].expand(80, -1, -1, -1)
    rows = {r["metric"]: r["value"] for r in evaluate_images(real=real, fake=collapsed, extractors=[COLOUR], seed=0)}
    assert rows["precision"] == 1
    assert rows["recall"] < 0.05
    assert rows["inception_score"] == pytest.approx(1, abs=1e-6)


def test_fewer_images_than_features_are_flagged() -> None:
    real, fake = coloured("real", 12)[0], coloured("fake", 200)[0]
    rows = {r["metric"]: r for r in evaluate_images(real=real, fake=fake, extractors=[CORNERS], seed=0)}
    assert rows["fid"]["warnings"] == ["fewer images than features (12): biased upwards, compare at equal n only"]
    rows = {r["metric"]: r for r in evaluate_images(real=fake, fake=fake, extractors=[CORNERS], seed=0)}
    assert rows["fid"]["warnings"] == []


def test_class_consistency_is_the_share_in_the_intended_class() -> None:
    images, labels = coloured("fake", 40)
    assert class_consistency(images=images, labels=labels, judge=COLOUR)["value"] == 1
    labels[:10] = (labels[:10] + 1) % 4
    row = class_consistency(images=images, labels=labels, judge=COLOUR)
    assert row["value"] == 0.75
    assert row["interval"][0] < 0.75 < row["interval"][1]
    assert set(row) == KEYS
    with pytest.raises(DataError, match="each image needs one label, found 40 and 3; pass both together"):
        class_consistency(images=images, labels=labels[:3], judge=COLOUR)


def test_wilson_interval_equals_published_values_and_stays_within_zero_and_one() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263, 15/148, 0/20."""
    for successes, count, expected in (
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
    ):
        assert wilson_interval(successes / count, count) == pytest.approx(expected, abs=5e-5)


def test_networks_trained_on_generated_images_cluster_the_real_ones() -> None:
    """Four colours as children, two warm and two cool parents: an easy law whose answer is known."""
    parents = torch.tensor([0, 1, 1, 0])
    asked: list[tuple[int, int]] = []

    def sample(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        asked.append((count, seed))
        images, child = coloured(f"generated-{seed}", count)
        return images, child, parents[child]

    real, labels = coloured("real", 100)
    found = cluster_with_generated(
        sample, real, labels, num_children=4, num_parents=2, seed=0, num_generated=80, kimg=0.5
    )
    values = {row["metric"]: row["value"] for row in found.rows}
    assert set(values) == {"nmi_geometric", "nmi_arithmetic", "nmi_max", "clustering_accuracy", "ari"}
    assert values["clustering_accuracy"] > 0.95
    assert (found.child == labels.numpy()).mean() > 0.95
    assert (found.parent == parents[labels].numpy()).mean() > 0.95
    assert all(set(row) == KEYS and row["n_real"] == 100 and row["n_fake"] == 80 for row in found.rows)
    assert [count for count, _ in asked] == [80]
