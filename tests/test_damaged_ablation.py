"""Damaged and wrongly typed JSON in the folder of an ablation is answered in words when the command is typed again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_ablation import CONFIG, fake_sets, options, scanned

from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import CheckpointError, DataError, FineGANAugError
from recipes.ablation import run_ablation
from recipes.sets import inherited

torch.set_num_threads(1)
ARMS = ("R1", "R2", "R5", "S3")
CELL, TRIAL = "cells/0.5-S3-test_efficientnet-0", "selection/0.5-R2-test_efficientnet-0-trivial-0"
LABELS, FILTER = "gan/0.5-0/labels.json", "synthetic/0.5-0/filter.json"
HUGE = "9" * 400
ANEW = "restore the file or make it anew"


pytestmark = pytest.mark.fault("bad input: damaged files of runs and ablations")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scanned(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def finished(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return again(tmp_path_factory.mktemp("ablation") / "a", manifest)


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "a"))


def again(out: Path, manifest: Manifest) -> Path:
    run_ablation(options(out, arms=ARMS, pairs=1, alpha_grid=(0.5,)), CONFIG, manifest, made_once)
    return out


def made_once(budget: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
    """Finished sets stay as they are, as with `prepare_synthetic`."""
    return out_dir if (out_dir / "filter.json").exists() else fake_sets(budget, fraction, draw, out_dir)


def refusal(folder: Path, manifest: Manifest) -> tuple[type[FineGANAugError], str, str]:
    with pytest.raises(FineGANAugError) as caught:
        again(folder, manifest)
    return type(caught.value), caught.value.cause, caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("opening.json", "{}", " must hold openings, found no such key"),
        ("opening.json", '{"openings": 5}', ": openings must be list of str, found 5"),
        ("opening.json", '{"openings": null}', ": openings must be list of str, found None"),
        ("opening.json", '{"openings": {}}', ": openings must be list of str, found {}"),
        ("opening.json", '{"openings": "abc"}', ": openings must be list of str, found 'abc'"),
        (f"{TRIAL}/result.json", "{}", " must hold validation.accuracy, found no such key"),
        (f"{TRIAL}/result.json", '{"validation": null}', " must hold validation.accuracy, found no such key"),
        (
            f"{TRIAL}/result.json",
            '{"validation": {"accuracy": "x"}}',
            ": validation.accuracy must be float, found 'x'",
        ),
        (
            f"{TRIAL}/result.json",
            f'{{"validation": {{"accuracy": {HUGE}}}}}',
            f": validation.accuracy must be float, found {HUGE[:80]}",
        ),
        (f"{CELL}/result.json", "{}", " must hold steps, found no such key"),
        (f"{CELL}/result.json", '{"steps": NaN}', ": steps must be int, found nan"),
        (f"{CELL}/result.json", '{"steps": 1e999}', ": steps must be int, found inf"),
        (f"{CELL}/arm.json", "{}", " must hold alpha, found no such key"),
        (f"{CELL}/arm.json", '{"alpha": "x"}', ": alpha must be float, found 'x'"),
        (f"{CELL}/arm.json", '{"alpha": null}', ": alpha must be float, found None"),
        (f"{CELL}/arm.json", '{"alpha": 0.5}', " must hold pool, found no such key"),
        (FILTER, "{}", " must hold warnings, found no such key"),
        (FILTER, '{"warnings": null}', ": warnings must be list of str, found None"),
        (FILTER, '{"warnings": 5}', ": warnings must be list of str, found 5"),
        (FILTER, '{"warnings": [], "rows": 5}', ": rows must be list of object, found 5"),
    ],
)
def test_a_file_of_the_wrong_types_is_refused(
    name: str, text: str, cause: str, folder: Path, manifest: Manifest
) -> None:
    (folder / name).write_text(text)
    assert refusal(folder, manifest) == (DataError, f"{folder / name}{cause}", ANEW)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"accuracy": None}, ": accuracy must be float, found None"),
        ({"accuracy": float("nan")}, ": accuracy must be float, found nan"),
        ({"per_class_accuracy": [1, "x"]}, ": per_class_accuracy must be list of float or null, found [1, 'x']"),
    ],
    ids=str,
)
def test_scores_of_the_wrong_types_are_refused(
    changes: dict[str, object], cause: str, folder: Path, manifest: Manifest
) -> None:
    path = folder / CELL / "test.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | changes))
    assert refusal(folder, manifest) == (DataError, f"{path}{cause}", ANEW)
    path.write_text(json.dumps({"model_sha256": whole["model_sha256"]}))
    assert refusal(folder, manifest) == (DataError, f"{path} must hold accuracy, found no such key", ANEW)


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        ("{}", DataError, " must hold classifier, found no such key"),
        ('{"classifier": {}, "classes": 5}', DataError, ": classes must be list of str, found 5"),
        (
            '{"classifier": {"zzz": 5}, "classes": ["a"]}',
            CheckpointError,
            ": configuration holds unknown keys zzz",
        ),
        ('{"classifier": {"steps": "x"}, "classes": ["a"]}', CheckpointError, ": steps must be int, got 'x'"),
    ],
)
def test_a_classifier_without_its_configuration_is_not_evaluated(
    text: str, kind: type[FineGANAugError], cause: str, folder: Path, manifest: Manifest
) -> None:
    cell = folder / CELL
    (cell / "config.json").write_text(text)
    (cell / "test.json").unlink()
    remedy = ANEW if kind is DataError else f"remove {cell} and train it again"
    assert refusal(folder, manifest) == (kind, f"{cell / 'config.json'}{cause}", remedy)


def test_the_weights_of_another_network_are_refused(folder: Path, manifest: Manifest) -> None:
    cell = folder / CELL
    save_file({"a": torch.zeros(1)}, cell / "model.safetensors")
    cause = f"the weights in {cell} must fit its config.json, they do not"
    assert refusal(folder, manifest) == (CheckpointError, cause, f"remove {cell} and train it again")


def test_a_cell_without_weights_is_named_and_can_be_trained_again(folder: Path, manifest: Manifest) -> None:
    cell, before = folder / CELL, (folder / "rows.json").read_bytes()
    (cell / "model.safetensors").unlink()
    cause = f"{cell} must hold the trained weights, found no model.safetensors"
    remedy = "remove that folder; the same command trains it again"
    assert refusal(folder, manifest) == (CheckpointError, cause, remedy)
    shutil.rmtree(cell)
    again(folder, manifest)
    assert (folder / "rows.json").read_bytes() == before


@pytest.mark.parametrize(
    ("labels", "cause", "remedy"),
    [
        (None, ": labels must be list of int, found None", ANEW),
        (5, ": labels must be list of int, found 5", ANEW),
        (
            [0, 1],
            " must hold a label for each of the 36 training photographs, found 2",
            "restore the file, or train the generator anew",
        ),
        ([99] * 36, ": labels must lie from -1 to 1, found 99", "restore the file, or train the generator anew"),
    ],
    ids=["null", "number", "two", "99"],
)
def test_labels_that_do_not_fit_are_refused(
    labels: object, cause: str, remedy: str, folder: Path, manifest: Manifest
) -> None:
    shutil.rmtree(folder / "pools/R5-0.5-0")
    (folder / LABELS).write_text(json.dumps({"labels": labels}))
    assert refusal(folder, manifest) == (DataError, f"{folder / LABELS}{cause}", remedy)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{}", " must hold options.generator, found no such key"),
        ('{"options": null}', " must hold options.generator, found no such key"),
        ('{"options": {}}', " must hold options.generator, found no such key"),
        ('{"options": 5}', " must hold options.generator, found no such key"),
    ],
)
def test_sets_of_an_ablation_without_options_are_refused(text: str, cause: str, folder: Path) -> None:
    (folder / "ablation.json").write_text(text)
    with pytest.raises(DataError) as caught:
        inherited(folder)
    assert (caught.value.cause, caught.value.remedy) == (f"{folder / 'ablation.json'}{cause}", ANEW)


def test_options_of_the_wrong_types_are_not_inherited(folder: Path) -> None:
    path = folder / "ablation.json"
    assert inherited(folder)["per_class"] == 500
    content = json.loads(path.read_text())
    content["options"]["per_class"] = "x"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        inherited(folder)
    assert caught.value.cause == f"{path}: options.per_class must be int, found 'x'"
