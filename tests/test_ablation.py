"""The ablation on tiny images: arms, pairs, restart, one opening of the test, and rows that the report can read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_ablation import CONFIG, fake_sets, options, scanned

from classifier.config import ClassifierConfig
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import CheckpointError, ConfigError, LeakError
from finegan_aug.files import read_json, sha256_file, write_json
from finegan_aug.filtering import FilterReport
from finegan_aug.report import write_report
from recipes.ablation import plan, run_ablation
from recipes.arms import ARMS, Cell, cell_config, train_cell
from recipes.opening import count_opening, data_name
from recipes.sets import prepare_synthetic, read_generator

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
TRAINED = tuple(arm for arm in ARMS if arm not in ("D2", "D5", "S4"))  # no teacher is trained here; no image has a mask


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scanned(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def finished(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation")
    run_ablation(options(out, arms=TRAINED), CONFIG, manifest, fake_sets)
    return out


def test_every_arm_of_every_pair_is_trained_for_equal_steps_and_evaluated_on_all_test_images(finished: Path) -> None:
    rows = read_json(finished / "rows.json")["rows"]
    assert [(row["arm"], row["pair"]) for row in rows] == [(arm, pair) for pair in range(2) for arm in TRAINED]
    assert {row["steps"] for row in rows} == {3}
    assert {(row["arm"] == "C0", row["real_images"]) for row in rows} == {(False, 20), (True, 0)}
    assert [row["alpha"] for row in rows[:8]] == [0.0, 0.0, 0.4, 0.4, 0.4, 1.0, 0.4, 0.4]
    assert [row["pool"] for row in rows[3:8]] == [8, 4, 4, 20, 8]  # S1, S3, C0, N0, P0
    for row in rows:
        with np.load(finished / row["predictions"], allow_pickle=False) as kept:
            assert len(kept["labels"]) == 10
            assert (kept["logits"].argmax(1) == kept["labels"]).mean() == pytest.approx(row["accuracy"])
            assert sorted(kept["image"]) == sorted(
                image.sha256 for image in read_manifest(finished / "manifest.jsonl").of("test")
            )


def test_the_facts_of_the_experiment_name_its_data_and_count_the_labelled_images(finished: Path) -> None:
    data = read_json(finished / "experiment.json")["data"]
    assert data["labelled_budget"] == {"0.5": 20}
    assert (data["train_images"], data["test_images"], data["classes"]) == (40, 10, ["green", "red"])


@pytest.mark.parametrize(
    ("folder", "name"), [("birds/train", "birds"), ("CUB_200/images", "CUB 200"), ("photos/birds", "birds")]
)
def test_data_are_named_after_their_own_folder_and_not_after_the_split(tmp_path: Path, folder: str, name: str) -> None:
    assert data_name(tmp_path / folder) == name


def test_a_row_of_synthetic_images_names_its_lineage(finished: Path) -> None:
    header = read_json(finished / "rows.json")
    synthetic = [row for row in header["rows"] if row["arm"] == "S1"]
    assert {row["lineage"] for row in synthetic} == {sha256_file(finished / "synthetic/0.5-0/all/lineage.json")}
    assert header["lineage_checked"] is True
    assert header["gan_variance_included"] is False
    assert (header["labels"], header["gan_data"]) == ("tied", "u")


def test_the_arms_of_a_pair_start_from_the_same_weights_and_pairs_differ() -> None:
    seeds = {arm: cell_config(Cell(0.5, arm, "m", 0, 0), CONFIG).seed for arm in ("R1", "R2", "S1")}
    assert len(set(seeds.values())) == 1
    assert cell_config(Cell(0.5, "R1", "m", 1, 0), CONFIG).seed not in seeds.values()
    assert cell_config(Cell(0.5, "R1", "m", 0, 0), CONFIG).augment == "flip-crop"
    assert cell_config(Cell(0.5, "S1", "m", 0, 0), CONFIG).augment == CONFIG.augment == "trivial"


def test_the_same_command_again_trains_nothing_and_opens_nothing(
    finished: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("cells/*/[!.]*")}
    rows = (finished / "rows.json").read_bytes()
    monkeypatch.setattr("recipes.opening.SquareImages", lambda *_: pytest.fail("the test images were opened again"))
    run_ablation(options(finished, arms=TRAINED), CONFIG, manifest, fake_sets)
    assert {path: path.stat().st_mtime_ns for path in finished.glob("cells/*/[!.]*")} == before
    assert (finished / "rows.json").read_bytes() == rows
    assert read_json(finished / "opening.json")["count"] == 1


def test_a_killed_ablation_goes_on_at_the_arm_it_was_in_and_ends_with_the_same_weights(
    finished: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def dies_at(limit: int) -> Callable[..., Path]:
        def train(out: Path, cell: Cell, config: ClassifierConfig) -> Path:
            calls.append(cell.name)
            if len(calls) == limit:
                raise KeyboardInterrupt
            return train_cell(out, cell, config)

        return train

    wanted = options(tmp_path / "out", arms=("R1", "S1"))
    monkeypatch.setattr("recipes.arms.train_cell", dies_at(3))
    with pytest.raises(KeyboardInterrupt):
        run_ablation(wanted, CONFIG, manifest, fake_sets)
    assert not (tmp_path / "out" / "rows.json").exists()
    assert not list((tmp_path / "out").glob("cells/*/test.json"))
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("cells/*/model.safetensors")}
    assert len(stamps) == 2
    monkeypatch.setattr("recipes.arms.train_cell", train_cell)
    run_ablation(wanted, CONFIG, manifest, fake_sets)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    for name in ("0.5-R1-test_efficientnet-1", "0.5-S1-test_efficientnet-1"):
        mine, whole = (load_file(folder / "cells" / name / "model.safetensors") for folder in (wanted.out, finished))
        assert all(torch.equal(mine[key], whole[key]) for key in whole)
    assert read_json(tmp_path / "out" / "opening.json")["count"] == 1


def test_more_pairs_are_a_second_opening_and_the_report_says_so(manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_ablation(options(out, arms=("R1", "R2"), pairs=1), CONFIG, manifest)
    run_ablation(options(out, arms=("R1", "R2"), pairs=2), CONFIG, manifest)
    assert read_json(out / "rows.json")["test_openings"] == 2
    page = write_report(out)
    assert "The test set was opened 2 times." in Path(page).read_text(encoding="utf-8")


def test_the_report_reads_the_rows(finished: Path) -> None:
    write_report(finished)
    report = (finished / "report.json").read_text(encoding="utf-8")
    assert '"S3"' in report
    assert "left out" not in report


def test_another_experiment_in_the_folder_is_refused(finished: Path, manifest: Manifest) -> None:
    with pytest.raises(CheckpointError, match=r"another configuration \(classifier.steps: 3 -> 4\)"):
        run_ablation(options(finished, arms=("R1",)), replace(CONFIG, steps=4), manifest)


@pytest.mark.parametrize("teacher", ["own", "packaged"])
def test_the_filter_of_a_set_has_the_teacher_of_its_generator(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str
) -> None:
    asked: list[dict[str, object]] = []

    class Silent:
        images = torch.zeros(1, 3, 8, 8)
        fitted = SimpleNamespace(logits=lambda images: torch.zeros(len(images), 2))

    def silent(synthetic: Path, seen: Manifest, **settings: object) -> type[Silent]:
        asked.append(settings)
        return Silent

    monkeypatch.setattr("finegan_aug.training.train", lambda config, seen, run_dir: run_dir)
    monkeypatch.setattr("finegan_aug.synthesis.synthesize", lambda run_dir, out, *_, **__: out.mkdir(parents=True))
    monkeypatch.setattr("finegan_aug.teacher.teach", silent)
    dropped: list[dict[str, float]] = []

    def filtered(*_: object, **settings: float) -> FilterReport:
        dropped.append(settings)
        return FilterReport(0, 0, {}, {}, {}, ())

    monkeypatch.setattr("finegan_aug.teacher.filter_taught", filtered)
    settings = tmp_path / "generator.yaml"
    settings.write_text(f"train:\n  preset: slim-32\n  boxes: none\n  teacher: {teacher}\n  seed: 3\n")
    asked_for = options(tmp_path / "out", generator=str(settings), drop_lowest_confidence=0.6, drop_outliers=0.2)
    prepare_synthetic(asked_for, 32, manifest, 1.0, 1, tmp_path / "set")
    assert dropped == [{"drop_lowest_confidence": 0.6, "drop_outliers": 0.2}]
    assert asked == [{"boxes": "none", "teacher": teacher, "teacher_kimg": 20.0, "seed": 4}]


def test_a_generator_that_saw_more_than_the_budget_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """The planted leak: a generator of all the data in the 50 % row."""

    def leaking(_: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
        return fake_sets(manifest, fraction, draw, out_dir)

    with pytest.raises(LeakError, match="must lie in the labelled budget of 20 images"):
        run_ablation(options(tmp_path, arms=("S1",), pairs=1), CONFIG, manifest, leaking)


def test_two_jobs_give_the_bits_of_one(finished: Path, manifest: Manifest, tmp_path: Path) -> None:
    changes = {"arms": ("R1", "S1"), "generator_per_pair": True, "jobs": 2}
    run_ablation(options(tmp_path, **changes), CONFIG, manifest, fake_sets)
    assert sorted(path.name for path in (tmp_path / "synthetic").iterdir()) == ["0.5-0", "0.5-1"]
    for name in ("0.5-R1-test_efficientnet-0", "0.5-S1-test_efficientnet-0"):
        two, one = (load_file(folder / "cells" / name / "model.safetensors") for folder in (tmp_path, finished))
        assert all(torch.equal(two[key], one[key]) for key in one)


def test_one_budget_serves_all_pairs_unless_each_has_a_generator(tmp_path: Path) -> None:
    shared = plan(options(tmp_path, pairs=3, arms=("S1",)))
    own = plan(options(tmp_path, pairs=3, arms=("S1",), generator_per_pair=True))
    assert [cell.budget for cell in shared] == ["0.5-0"] * 3
    assert [cell.budget for cell in own] == ["0.5-0", "0.5-1", "0.5-2"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"arms": ("R1", "S9")},
            "arms must be among R1, R2, D2, R5, D5, S1, S3, S4, C0, N0, P0, found S9; correct --arms",
        ),
        (
            {"arms": ("R2", "R5"), "gan_data": "s"},
            "R5 is the control of a generator that also saw unlabelled images, found gan_data s; "
            "use --gan-data u, or leave R5 out of --arms",
        ),
        (
            {"arms": ("R2", "D5"), "gan_data": "s", "soft_labels": True},
            "D5 is the control of a generator that also saw unlabelled images, found gan_data s; "
            "use --gan-data u, or leave D5 out of --arms",
        ),
        (
            {"arms": ("R2", "D5")},
            "D5 needs soft labels, found none; add --soft-labels, or leave D5 out of --arms",
        ),
        (
            {"alpha": 0.2, "alpha_grid": (0.4,)},
            "alpha is given or chosen from a grid, found both; leave out --alpha or --alpha-grid",
        ),
        (
            {"arms": ("R2", "N0"), "alpha_grid": (0.4,)},
            "alpha_grid needs a share above 0 and S1 or S3 to try it with, found [0.4] and R2, N0; "
            "add 0.2 to --alpha-grid and S3 to --arms, or give --alpha",
        ),
        (
            {"alpha_grid": (0.0,)},
            "alpha_grid needs a share above 0 and S1 or S3 to try it with, found [0.0] and R1, R2, S1, S3; "
            "add 0.2 to --alpha-grid and S3 to --arms, or give --alpha",
        ),
        (
            {"augment_grid": ("rand", "cutout")},
            "augment_grid must be among none, flip-crop, trivial, rand, timm, albumentations, found cutout; "
            "correct --augment-grid",
        ),
        ({"alpha": 1.2}, "alpha must lie in [0, 1], found 1.2; use a share such as 0.4"),
        (
            {"drop_lowest_confidence": 1.0},
            "drop_lowest_confidence must lie in [0, 1), found 1; give a share such as 0.1",
        ),
        ({"drop_outliers": -1.0}, "drop_outliers must lie in [0, 1), found -1; give a share such as 0.1"),
        ({"pairs": 0}, "pairs must be at least 1, found 0; correct --pairs"),
        ({"models": ()}, "fractions, models and arms must not be empty; leave them out for the defaults"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options(tmp_path, **changes)
    assert str(caught.value) == words


def test_the_same_frozen_weights_are_one_opening(tmp_path: Path) -> None:
    record = tmp_path / "opening.json"
    assert [count_opening(record, digest) for digest in ("a", "a", "b", "b", "a")] == [1, 1, 2, 2, 3]
    assert read_json(record)["openings"] == ["a", "b", "a"]


def test_the_generator_is_read_from_the_train_section_of_a_named_configuration() -> None:
    config = read_generator("demo")
    assert (config.network, config.labels, config.boxes) == ("slim-32", "tied", "given")


@pytest.mark.parametrize("recipe", ["ablation", "train_classifier"])
def test_a_recipe_ends_with_two_lines_and_code_2_on_a_wrong_option(recipe: str) -> None:
    command = [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), "--modle", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown option --modle; the nearest is --mod")
    assert len(done.stderr.splitlines()) == 2


def test_a_foreign_package_named_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "__init__.py").write_text("")
    command = [sys.executable, str(ROOT / "recipes" / "ablation.py"), "--help"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert done.returncode == 2
    assert str(tmp_path / "classifier" / "__init__.py") in done.stderr
    assert "fix: pip uninstall classifier" in done.stderr


@pytest.mark.slow
def test_the_classifier_recipe_trains_and_ends_with_its_accuracy(manifest: Manifest, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    write_json(settings, {"model": "test_efficientnet", "resolution": 24, "steps": 3, "batch_size": 4, "threads": 1})
    command = [sys.executable, str(ROOT / "recipes" / "train_classifier.py"), "--config", str(settings), "--test-once"]
    data = ["--data", str(manifest.root), "--test-data", str(manifest.test_root), "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, *data], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "validation accuracy" in done.stdout
    assert "of 10 images" in done.stdout
    assert (tmp_path / "run" / "predictions.npz").exists()
