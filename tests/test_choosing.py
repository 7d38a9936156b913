"""What is chosen on validation images: augmentation, alpha with its guard rail, the classical control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_ablation import CONFIG, MODEL, fake_sets, options, scanned

from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import CheckpointError, DataError
from finegan_aug.files import read_json
from finegan_aug.report import write_report
from recipes.ablation import AblationOptions, run_ablation
from recipes.arms import train_candidate
from recipes.choosing import default_alpha, primary

LN = "test_efficientnet_ln"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scanned(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Accuracy on validation by what a trial's folder name ends with, in place of the measured one."""
    table: dict[str, float] = {}

    def looked_up(run_dir: Path) -> float:
        (found,) = [value for end, value in table.items() if run_dir.name.endswith(end)]
        return found

    monkeypatch.setattr("recipes.choosing.validation_accuracy", looked_up)
    return table


def chosen(out: Path, name: str) -> dict[str, Any]:
    (record,) = read_json(out / name)["chosen"]
    return dict(record)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["arm"]: row for row in read_json(out / "rows.json")["rows"]}


def trials(out: Path) -> list[str]:
    return sorted(path.name.removeprefix(f"0.5-{MODEL}") for path in (out / "selection").iterdir())


def test_alpha_follows_the_fraction() -> None:
    assert [default_alpha(fraction) for fraction in (0.05, 0.1, 0.3, 0.5, 1.0)] == [0.5, 0.5, 0.4, 0.4, 0.2]


def test_without_a_gain_the_best_share_above_0_is_trained_and_the_guard_rail_says_0(
    manifest: Manifest, tmp_path: Path
) -> None:
    asked = options(tmp_path, arms=("R2", "S1"), pairs=1, alpha_grid=(0.6, 0.3, 0.0), models=(LN,))
    # Nothing is learnt, and without BatchNorm the images leave no trace either: all shares are equally good.
    run_ablation(asked, replace(CONFIG, lr=1e-9), manifest, fake_sets)
    record = chosen(tmp_path, "alpha.json")
    assert (record["arm"], record["alpha"], record["guarded"]) == ("S1", 0.3, 0.0)
    assert set(record["validation_accuracy"]) == {"0", "0.3", "0.6"}
    assert len(set(record["validation_accuracy"].values())) == 1
    assert rows_of(tmp_path)["S1"]["alpha"] == 0.3
    assert read_json(tmp_path / "rows.json")["guard"] == [record]
    assert not list(tmp_path.glob("selection/*/predictions.npz"))
    write_report(tmp_path)
    (guard,) = read_json(tmp_path / "report.json")["guards"]
    assert (guard["shipped"], guard["verdict"], guard["comparison"]["mean"]) == (0.0, "off", 0.0)


@pytest.mark.parametrize(
    ("without", "few", "many", "alpha", "guarded"),
    [(0.7, 0.8, 0.7, 0.3, 0.3), (0.9, 0.7, 0.8, 0.6, 0.0), (0.8, 0.8, 0.8, 0.3, 0.0), (0.5, 0.6, 0.9, 0.6, 0.6)],
)
def test_the_best_share_above_0_is_used_and_guarded_by_0(
    manifest: Manifest, tmp_path: Path, scores: dict[str, float],
    without: float, few: float, many: float, alpha: float, guarded: float,
) -> None:  # fmt: skip
    scores |= {"-0": without, "-0.3": few, "-0.6": many}
    asked = options(tmp_path, arms=("R2", "S1", "S3", "C0", "N0"), pairs=1, alpha_grid=(0.3, 0.6))
    run_ablation(asked, CONFIG, manifest, fake_sets)
    record = chosen(tmp_path, "alpha.json")
    assert (record["arm"], record["alpha"], record["guarded"]) == ("S3", alpha, guarded)
    assert record["validation_accuracy"] == {"0": without, "0.3": few, "0.6": many}
    alphas = {arm: row["alpha"] for arm, row in rows_of(tmp_path).items()}
    assert alphas == {"R2": 0.0, "S1": alpha, "S3": alpha, "C0": 1.0, "N0": alpha}


@pytest.mark.parametrize(("plain", "guarded"), [(0.85, 0.0), (0.8, 0.0), (0.75, 0.3)])
def test_the_guard_rail_compares_with_the_better_of_both_controls(
    manifest: Manifest, tmp_path: Path, scores: dict[str, float], plain: float, guarded: float
) -> None:
    """In flowers-gpu-pretrained-100 S3 beat R2 on the hold-out, not R1, and was shipped: 6 points were lost."""
    scores |= {"flip-crop-0": plain, "trivial-0": 0.7, "-0.3": 0.8}
    run_ablation(options(tmp_path, arms=("R1", "R2", "S3"), pairs=1, alpha_grid=(0.3,)), CONFIG, manifest, fake_sets)
    record = chosen(tmp_path, "alpha.json")
    assert (record["alpha"], record["guarded"]) == (0.3, guarded)
    control = ("R1", plain) if plain > 0.7 else ("R2", 0.7)
    assert (record["control"], record["control_accuracy"]) == control


def test_trials_are_made_on_pair_0_alone_with_its_validation_images_held_out(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, int]] = []

    def counted(*args: Any, **more: Any) -> Path:
        from classifier.training import train_classifier

        trained.append((len(args[1]), len(more.get("validation") or ())))
        return train_classifier(*args, **more)

    monkeypatch.setattr("recipes.arms.train_classifier", counted)
    asked = options(tmp_path, arms=("R1", "R2", "S3"), pairs=3, alpha_grid=(0.3, 0.6), augment_grid=("rand", "none"))
    run_ablation(asked, CONFIG, manifest, fake_sets)
    assert {name.split("-")[3] for name in trials(tmp_path)} == {"0"}  # fraction, arm, model, pair
    # R2 with two augmentations, S3 with two shares, R1: what serves two choices is trained once.
    assert trained == [(16, 4)] * 5 + [(20, 0)] * 9
    budget = read_manifest(tmp_path / "budgets" / "0.5-0.jsonl")
    assert len(budget.of("val")) == 4


def test_the_augmentation_is_chosen_first_and_holds_for_r2_and_all_that_builds_upon_it(
    manifest: Manifest, tmp_path: Path, scores: dict[str, float]
) -> None:
    scores |= {"R2-test_efficientnet-0-trivial-0": 0.6, "-rand-0": 0.8, "R2-test_efficientnet-0-flip-crop-0": 0.7}
    scores |= {"-rand-0.3": 0.9, "R1-test_efficientnet-0-flip-crop-0": 0.1}
    grid = ("trivial", "rand", "flip-crop")
    asked = options(tmp_path, arms=("R1", "R2", "S3", "N0"), pairs=1, augment_grid=grid, alpha_grid=(0.3,))
    run_ablation(asked, CONFIG, manifest, fake_sets)
    record = chosen(tmp_path, "augment.json")
    assert record["augment"] == "rand"
    assert record["validation_accuracy"] == {"trivial": 0.6, "rand": 0.8, "flip-crop": 0.7}
    assert chosen(tmp_path, "alpha.json")["validation_accuracy"] == {"0": 0.8, "0.3": 0.9}
    used = {
        arm: read_json(tmp_path / "cells" / f"0.5-{arm}-{MODEL}-0" / "config.json")["classifier"]["augment"]
        for arm in ("R1", "R2", "S3", "N0")
    }
    assert used == {"R1": "flip-crop", "R2": "rand", "S3": "rand", "N0": "rand"}


def test_of_equal_augmentations_the_first_is_taken(
    manifest: Manifest, tmp_path: Path, scores: dict[str, float]
) -> None:
    scores |= {"-none-0": 0.5, "-rand-0": 0.5}
    run_ablation(options(tmp_path, arms=("R2",), pairs=1, augment_grid=("none", "rand")), CONFIG, manifest)
    assert chosen(tmp_path, "augment.json")["augment"] == "none"


@pytest.mark.parametrize(("plain", "strong", "control"), [(0.8, 0.7, "R1"), (0.7, 0.8, "R2"), (0.7, 0.7, "R2")])
def test_the_control_is_the_better_classical_arm_on_validation_named_before_the_opening(
    manifest: Manifest, tmp_path: Path, scores: dict[str, float], monkeypatch: pytest.MonkeyPatch,
    plain: float, strong: float, control: str,
) -> None:  # fmt: skip
    scores |= {"-flip-crop-0": plain, "-trivial-0": strong, "-0.3": 0.5}
    seen: list[str] = []

    def opened(*_: object) -> Any:
        from classifier.data import SquareImages

        seen.append(chosen(tmp_path, "classical.json")["control"])
        return SquareImages(*_)  # type: ignore[arg-type]

    monkeypatch.setattr("recipes.opening.SquareImages", opened)
    asked = options(tmp_path, arms=("R1", "R2", "S3"), pairs=1, alpha_grid=(0.3,))
    run_ablation(asked, CONFIG, manifest, fake_sets)
    assert seen == [control]
    contrast = {"arm": "S3", "control": control, "fraction": 0.5, "model": MODEL}
    assert read_json(tmp_path / "frozen.json")["primary"] == [contrast]
    assert read_json(tmp_path / "rows.json")["primary"] == [contrast]
    assert chosen(tmp_path, "classical.json")["validation_accuracy"] == {"R1": plain, "R2": strong}
    write_report(tmp_path)
    found = read_json(tmp_path / "report.json")
    assert [c["control"] for c in found["contrasts"] if c["primary"]] == [control]
    assert {(c["arm"], c["control"]) for c in found["contrasts"]} == {("S3", "R1"), ("S3", "R2"), ("R2", "R1")}


def test_the_primary_contrast_is_fixed_by_the_arms(tmp_path: Path) -> None:
    def of(*arms: str) -> object:
        return primary(options(tmp_path, arms=arms))

    assert primary(options(tmp_path)) == {"arm": "S3", "control": "R2"}
    assert of("R1", "R2") == {"arm": "R2", "control": "R1"}
    assert of("R2", "P0") == {"arm": "P0", "control": "R2"}
    assert of("R2", "N0", "P0") == {"arm": "N0", "control": "R2"}
    assert of("R2", "C0") == {"arm": "C0", "control": "R2"}


@pytest.mark.parametrize("more", [{}, {"alpha": 0.4}])
def test_without_a_grid_nothing_is_held_out_and_no_guard_rail_is_claimed(
    manifest: Manifest, tmp_path: Path, more: dict[str, float]
) -> None:
    run_ablation(options(tmp_path, arms=("R2", "S3"), pairs=1, **more), CONFIG, manifest, fake_sets)
    assert not [name for name in ("alpha.json", "augment.json", "classical.json") if (tmp_path / name).exists()]
    assert not read_manifest(tmp_path / "budgets" / "0.5-0.jsonl").of("val")
    assert read_json(tmp_path / "rows.json")["guard"] == []
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "\N{GREEK SMALL LETTER ALPHA} was not chosen on validation: no guard rail is claimed." in page
    assert read_json(tmp_path / "report.json")["guards"] == []


def test_a_finished_cell_is_refused_where_another_alpha_was_chosen_since(
    manifest: Manifest, tmp_path: Path, scores: dict[str, float]
) -> None:
    """S1 chose alpha; with S3 among the arms, S3 chooses it."""
    scores |= {
        "-0": 0.5,
        "-0.3": 0.6,
        "S1-test_efficientnet-0-trivial-0.6": 0.9,
        "S3-test_efficientnet-0-trivial-0.6": 0,
    }
    run_ablation(options(tmp_path, arms=("S1",), pairs=1, alpha_grid=(0.3, 0.6)), CONFIG, manifest, fake_sets)
    with pytest.raises(CheckpointError) as caught:
        run_ablation(options(tmp_path, arms=("S1", "S3"), pairs=1, alpha_grid=(0.3, 0.6)), CONFIG, manifest, fake_sets)
    assert str(caught.value) == (
        f"{tmp_path / 'cells' / f'0.5-S1-{MODEL}-0'} must have been trained with alpha 0.3, found 0.6; "
        "use another --out"
    )


def test_a_budget_without_validation_images_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """One labelled image of each class."""
    asked: AblationOptions = options(tmp_path, fractions=(0.05,), arms=("R2",), pairs=1, augment_grid=("none",))
    with pytest.raises(DataError) as caught:
        run_ablation(asked, CONFIG, manifest)
    assert str(caught.value) == (
        "a choice on validation needs classes of 2 or more labelled images, found none at fraction 0.05; "
        "use a larger fraction, or no grid"
    )


def test_a_killed_choice_goes_on_at_the_trial_it_was_in(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies_at(limit: int) -> Callable[..., Path]:
        calls: list[str] = []

        def train(*args: Any) -> Path:
            calls.append(args[1].name)
            if len(calls) == limit:
                raise KeyboardInterrupt
            return train_candidate(*args)

        return train

    asked = options(tmp_path, arms=("R2", "S3"), pairs=1, alpha_grid=(0.3, 0.6))
    monkeypatch.setattr("recipes.choosing.train_candidate", dies_at(2))
    with pytest.raises(KeyboardInterrupt):
        run_ablation(asked, CONFIG, manifest, fake_sets)
    assert not (tmp_path / "alpha.json").exists()
    (first,) = (tmp_path / "selection").glob("*/model.safetensors")
    stamp = first.stat().st_mtime_ns
    monkeypatch.setattr("recipes.choosing.train_candidate", train_candidate)
    run_ablation(asked, CONFIG, manifest, fake_sets)
    assert first.stat().st_mtime_ns == stamp
    assert set(chosen(tmp_path, "alpha.json")["validation_accuracy"]) == {"0", "0.3", "0.6"}
