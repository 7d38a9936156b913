"""Groups against classes: each method gets the score that follows from what it can see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from untrained_run import untrained_run

from benchmarks import discovery as benchmark
from finegan_aug.checkpoint import save_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.budget import budget
from finegan_aug.data.manifest import Manifest
from finegan_aug.discovery import Codes, compare_groups, over_seeds, pixel_components
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.evaluation import k_means
from finegan_aug.features import Extractor
from finegan_aug.files import JSON, read_json
from finegan_aug.metrics import clustering_accuracy
from finegan_aug.models.game import FineGAN
from finegan_aug.randomness import seed_for, uniforms
from finegan_aug.restoring import named_tensors
from finegan_aug.trained import read_run_config

SIDE_PX = 16
COLOURS = torch.tensor([[230, 40, 40], [40, 230, 40], [40, 40, 230], [220, 220, 40]])
PARENTS = torch.tensor([0, 1, 1, 0])
METRICS = ["nmi_geometric", "nmi_arithmetic", "nmi_max", "clustering_accuracy", "ari"]
KEYS = {"method", "seed", "metric", "value", "interval", "std", "extractor", "extractor_sha256"}
KEYS |= {"n_real", "n_fake", "split", "warnings"}


def coloured(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Noisy images in four colours, uint8 [N, 3, 16, 16], and the number of the colour."""
    labels = torch.arange(count) % 4
    noise = torch.from_numpy(uniforms(seed_for(0, name), range(count), 3 * SIDE_PX**2)).float()
    images = COLOURS[labels][:, :, None, None] + 60 * (noise.view(count, 3, SIDE_PX, SIDE_PX) - 0.5)
    return images.clamp(0, 255).byte(), labels


def sample(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A generator whose child codes are the colours, and whose parents are two colours each."""
    images, child = coloured(f"generated-{seed}", count)
    return images, child, PARENTS[child]


# Sees one thing only: whether there is much red, which half of the images has.
RED = Extractor("red", "a" * 64, lambda x: torch.stack([x[:, 0].float().mean((1, 2)) > 128, torch.ones(len(x))], 1))


def scores(rows: list[JSON], method: str) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in rows if row["method"] == method}


@pytest.fixture(scope="module")
def rows() -> list[JSON]:
    images, truth = coloured("real", 100)
    codes = Codes(sample, num_children=4, num_parents=2)
    return compare_groups(
        images, truth, codes=codes, extractors=[RED], seeds=[3, 4], num_generated=80, kimg=0.5, split="val"
    )


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_colours_are_found_by_codes_networks_and_pixels_and_half_of_them_by_red_alone(rows: list[JSON]) -> None:
    """Red splits four equal classes into two pairs: one bit of two, and one class of each pair is right."""
    for method in ("codes", "phi", "pixels"):
        assert min(scores(rows, method).values()) > 0.9, method
    assert scores(rows, "frozen") == pytest.approx(
        {
            "nmi_geometric": 0.5**0.5,
            "nmi_arithmetic": 2 / 3,
            "nmi_max": 0.5,
            "clustering_accuracy": 0.5,
            "ari": 32 / 65,  # of 4,950 pairs 1,200 share class and cluster, 2,450 a cluster
        },
        abs=1e-3,
    )


def test_every_row_names_method_seed_counts_and_extractor(rows: list[JSON]) -> None:
    assert all(set(row) == KEYS and row["split"] == "val" and row["n_real"] == 100 for row in rows)
    order = [(seed, method) for seed in (3, 4) for method in ("codes", "phi", "pixels", "frozen")]
    assert [(row["seed"], row["method"], row["metric"]) for row in rows] == [(*o, m) for o in order for m in METRICS]
    named = {row["method"]: (row["extractor"], row["n_fake"]) for row in rows}
    assert named == {
        "codes": ("phi_c, small-cnn@16", 80),
        "phi": ("phi_p+phi_c, small-cnn@16", 80),
        "pixels": ("pixels@16, 50 principal components", 0),
        "frozen": ("red", 0),
    }


def test_the_summary_is_mean_and_range_over_the_seeds() -> None:
    values = [("codes", 0, 0.5), ("codes", 1, 0.9), ("codes", 2, 0.4), ("pixels", 0, 0.2)]
    rows = [{"method": m, "seed": s, "extractor": "x", "metric": "ari", "value": v} for m, s, v in values]
    first, second = over_seeds(rows)
    assert first == {
        "method": "codes",
        "extractor": "x",
        "metric": "ari",
        "mean": pytest.approx(0.6),
        "lowest": 0.4,
        "highest": 0.9,
        "seeds": 3,
    }
    assert (second["method"], second["mean"], second["seeds"]) == ("pixels", 0.2, 1)


def test_pixel_components_keep_the_distances_between_images() -> None:
    """Of fewer images than components nothing is lost: distances are those of the pixels."""
    images, _ = coloured("real", 20)
    kept = torch.from_numpy(pixel_components(images, seed=0))
    assert kept.shape == (20, 20)
    torch.testing.assert_close(torch.cdist(kept, kept), torch.cdist(*[images.flatten(1).double() / 255] * 2))
    np.testing.assert_array_equal(pixel_components(images, seed=0), kept.numpy())
    assert pixel_components(coloured("real", 60)[0], seed=0).shape == (60, 50)


def test_k_means_finds_groups_that_lie_apart_and_repeats_itself() -> None:
    truth = np.arange(60) % 3
    points = 10.0 * truth[:, None] + uniforms(seed_for(0, "points"), range(60), 2)
    clusters = k_means(points, 3, seed=5)
    assert (clusters.dtype, clustering_accuracy(labels=truth, clusters=clusters)) == (np.int64, 1)
    np.testing.assert_array_equal(k_means(points, 3, seed=5), clusters)


def test_images_without_a_true_class_are_refused() -> None:
    images, truth = coloured("real", 8)
    codes = Codes(sample, 4, 2)
    with pytest.raises(DataError) as caught:
        compare_groups(images, truth.where(truth > 0, -1), codes=codes, extractors=[], seeds=[0])
    assert caught.value.cause == "every image needs a true class, found [8] for 8 images, the least -1"
    assert caught.value.remedy == "take the classes of the folders"
    with pytest.raises(DataError, match=r"every image needs a true class, found \[7\] for 8 images, the least 0"):
        compare_groups(images, truth[:7], codes=codes, extractors=[], seeds=[0])


@pytest.fixture
def run(tmp_path: Path, toy_data: Manifest) -> Path:
    """Discovered codes; a quarter of the labels, the other photographs unlabelled."""
    manifest = budget(toy_data, 0.25, pair=0, validation_share=0, unlabelled="keep")
    assert len(manifest.of("train", labelled=False)) == 36
    shape = {"width": 0.125, "z_dim": 8, "num_children": 6, "num_parents": 2}
    config = FineGANConfig.preset("slim-32", labels="discovered", **shape).resolve(12)
    return untrained_run(tmp_path / "run", config, manifest)


def test_the_benchmark_scores_all_training_images_by_their_folders_and_writes_what_it_prints(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truths: list[list[int]] = []

    def by_truth(images: Tensor) -> Tensor:
        truths.append(benchmark.photographs(run, FineGANConfig.preset("slim-32"))[1].tolist())
        return torch.nn.functional.one_hot(torch.tensor(truths[0]), 12).float()

    oracle = Extractor("oracle", "b" * 64, by_truth)
    monkeypatch.setattr(benchmark, "packaged_extractor", lambda *, input_px: replace(oracle, name=f"oracle@{input_px}"))
    benchmark.main(["--run", str(run), "--samples", "24", "--kimg", "0.05", "--seeds", "7"])
    result = read_json(run / "discovery.json")
    assert truths[0] == [label for label in range(12) for _ in range(4)]  # also of the 36 without a usable label
    assert {k: result[k] for k in ("n", "num_classes", "num_children", "num_parents", "labels", "seeds", "split")} == {
        "n": 48,
        "num_classes": 12,
        "num_children": 6,
        "num_parents": 2,
        "labels": "discovered",
        "seeds": [7],
        "split": "train",
    }
    assert scores(result["rows"], "frozen") == pytest.approx(dict.fromkeys(METRICS, 1.0))
    assert scores(result["rows"], "codes")["clustering_accuracy"] <= 0.5  # six codes for twelve classes
    printed = capsys.readouterr().out.splitlines()
    assert (
        printed[0]
        == "48 photographs of 12 classes, split train; discovered labels, 6 child and 2 parent codes; seeds [7]"
    )
    assert printed[1].split() == ["method", *METRICS, "extractor"]
    assert [line.split()[0] for line in printed[2:]] == ["codes", "phi", "pixels", "frozen"]
    assert printed[5].split() == ["frozen", *["1.000", "(1.000-1.000)"] * 5, "oracle@96"]


def test_the_head_of_a_training_reads_the_child_codes_of_photographs(run: Path, toy_data: Manifest) -> None:
    """Reference: the networks as they were saved, photograph by photograph; a generator alone reads nothing."""
    config = read_run_config(run)
    images, truth = benchmark.photographs(run, config)
    assert benchmark.head_codes(run, config, images) is None
    game = FineGAN(replace(config, seed=5))
    named = named_tensors(game.networks())
    ema = {name: tensor for name, tensor in named.items() if name.startswith("generator.")}
    save_checkpoint(run, step=2, tensors={"model": named, "ema": ema}, state={"seen_images": 64}, keep=1)
    child_d, info = game.child_d.eval(), game.info.eval()
    with torch.no_grad():
        expected = [info(child_d(image[None] / 127.5 - 1, torch.tensor([-1]))[0]).argmax().item() for image in images]
    found = benchmark.head_codes(run, config, images)
    assert found is not None
    assert found.tolist() == expected
    benchmark.main(["--run", str(run), "--samples", "24", "--kimg", "0.05", "--seeds", "0", "1"])
    accuracy = clustering_accuracy(labels=truth.numpy(), clusters=np.array(expected))
    assert scores(read_json(run / "discovery.json")["rows"], "head")["clustering_accuracy"] == pytest.approx(accuracy)


def test_without_the_package_the_table_lacks_the_frozen_features_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*, input_px: int) -> Extractor:
        raise ConfigError("packaged features need a package, found none", "install it")

    monkeypatch.setattr(benchmark, "packaged_extractor", absent)
    out = tmp_path / "found.json"
    benchmark.main(["--run", str(run), "--out", str(out), "--samples", "24", "--kimg", "0.05", "--seeds", "0", "1"])
    assert capsys.readouterr().out.startswith("without frozen features: packaged features need a package, found none")
    assert {row["method"] for row in read_json(out)["rows"]} == {"codes", "phi", "pixels"}
    assert {row["seeds"] for row in read_json(out)["summary"]} == {2}
