"""The report checks the lineage of synthetic images itself, and gives no verdict that it cannot stand on."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ablation
from fake_experiment import change, write
from fake_lineage import budget, image, lineage_of, with_lineage
from faults import held

from finegan_aug.data.manifest import write_manifest
from finegan_aug.files import read_json, sha256_file
from finegan_aug.lineage import LINEAGE, write_lineage
from finegan_aug.report import words, write_report
from finegan_aug.report.evidence import unproved
from finegan_aug.report.rows import parse_rows
from recipes.ablation import run_ablation

OVERLAP = "Test images may have been trained on."


def experiment(folder: Path) -> Path:
    """Three pairs of R1, R2 and S3 at 10 %, S3 above R2 by 5 to 7 points, with everything a verdict needs."""
    rows = [
        {"fraction": 0.1, "arm": arm, "model": "net", "pair": pair, "accuracy": level + pair * 0.01}
        for arm, level in (("R1", 0.45), ("R2", 0.5), ("S3", 0.56))
        for pair in range(3)
    ]
    write(folder / "rows.json", with_lineage(folder, {"rows": rows}))
    return folder


def synthetic(folder: Path) -> Path:
    return folder / "synthetic" / "0.1-0" / "filtered"


def trained_with(folder: Path, *extra: str, **changes: Any) -> None:
    """Another lineage, which the rows name, as if the classifiers had been trained with this set."""
    lineage = lineage_of(budget(folder), *extra)
    write_lineage(synthetic(folder), type(lineage)(**{**lineage.__dict__, **changes}))
    _rows(folder, lineage=sha256_file(synthetic(folder) / LINEAGE))


def _rows(folder: Path, *, pairs: tuple[int, ...] = (0, 1, 2), **values: object) -> None:
    content = json.loads((folder / "rows.json").read_text())
    rows = [row | values if row["arm"] == "S3" and row["pair"] in pairs else row for row in content["rows"]]
    write(folder / "rows.json", content | {"rows": rows})


def without(folder: Path, key: str) -> None:
    content = json.loads((folder / "rows.json").read_text())
    write(folder / "rows.json", {name: value for name, value in content.items() if name != key})


def verdict(folder: Path) -> dict[str, Any]:
    page = write_report(folder).read_text(encoding="utf-8")
    report: dict[str, Any] = read_json(folder / "report.json")
    (line,) = report["headlines"]
    assert line["word"] in page
    found: dict[str, Any] = {**line, "warnings": report["warnings"]}
    found["contrasts"] = {(c["arm"], c["control"]): c["verdict"] for c in report["contrasts"]}
    return found


def test_with_a_lineage_inside_the_budget_there_is_a_verdict(tmp_path: Path) -> None:
    found = verdict(experiment(tmp_path))
    assert found["word"] == "helps"
    assert found["warnings"] == []


UNCHECKED: dict[str, tuple[Callable[[Path], None], str]] = {
    "rows.json says that nothing was checked": (
        lambda folder: change(folder / "rows.json", lineage_checked=False),
        "rows.json does not say that the lineage was checked at the mixing",
    ),
    "rows.json says nothing about it": (
        lambda folder: without(folder, "lineage_checked"),
        "rows.json does not say that the lineage was checked at the mixing",
    ),
    "rows.json says something else": (
        lambda folder: change(folder / "rows.json", lineage_checked="yes"),
        "rows.json does not say that the lineage was checked at the mixing",
    ),
    "one row names no lineage": (
        lambda folder: _rows(folder, pairs=(1,), lineage=None),
        "the images mixed into S3 have no lineage",
    ),
    "one row names no budget": (
        lambda folder: _rows(folder, pairs=(2,), draw=None),
        "budgets/0.1-None.jsonl is missing or damaged",
    ),
    "the lineage is gone": (
        lambda folder: shutil.rmtree(folder / "synthetic"),
        "the lineage {sha256} behind S3 is not in the folder",
    ),
    "the set was made anew": (
        lambda folder: write_lineage(synthetic(folder), lineage_of(budget(folder), image(5, "val").sha256)),
        "the lineage {sha256} behind S3 is not in the folder",
    ),
    "the budget is gone": (
        lambda folder: shutil.rmtree(folder / "budgets"),
        "budgets/0.1-0.jsonl is missing or damaged",
    ),
    "a row of the budget was changed": (
        lambda folder: _replace(folder / "budgets" / "0.1-0.jsonl", '"test"', '"train"'),
        "budgets/0.1-0.jsonl is missing or damaged",
    ),
}  # fmt: skip

LEAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a test image": (
        lambda folder: trained_with(folder, image(7, "test").sha256),
        f"no test image may stand behind synthetic images, found image {image(7, 'test').sha256[:12]} (gan_train)",
    ),
    "an image outside the budget": (
        lambda folder: trained_with(folder, "f" * 64),
        "the images behind a synthetic set must lie in the labelled budget of 6 images, found image ffffffffffff "
        "(gan_train)",
    ),
    "other classes": (
        lambda folder: trained_with(folder, classes=("bee", "ant")),
        "the lineage must list the classes of the data in their order ['ant', 'bee'], found ['bee', 'ant']",
    ),
}  # fmt: skip


def _replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.fault
@pytest.mark.parametrize("case", [*UNCHECKED, *LEAKS])
def test_without_proof_there_is_no_verdict(case: str, tmp_path: Path) -> None:
    break_it, expected = (UNCHECKED | LEAKS)[case]
    folder = experiment(tmp_path)
    known = next(row["lineage"] for row in read_json(folder / "rows.json")["rows"] if row["arm"] == "S3")
    break_it(folder)
    expected = expected.format(sha256=known[:12]) if "{" in expected else expected
    found = verdict(folder)
    assert found["word"] == ("leak" if case in LEAKS else "lineage unchecked")
    assert found["text"] == f"Barred from a verdict: {expected}."
    assert found["warnings"] == [f"No verdict for the synthetic images: {expected}. {OVERLAP}"]
    assert found["contrasts"]["S3", "R2"] == found["contrasts"]["S3", "R1"] == found["word"]
    assert found["contrasts"]["R2", "R1"] == "helps"  # nothing generated takes part
    with open(folder / "tables" / "contrasts.csv", encoding="utf-8") as stream:
        assert {line["verdict"] for line in csv.DictReader(stream) if line["arm"] == "S3"} == {found["word"]}
    held("leaks: verdicts withheld without proof of lineage", 1, 1)


def test_a_leak_is_named_before_what_is_unknown(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    trained_with(folder, image(7, "test").sha256)
    _rows(folder, pairs=(0,), lineage=None)
    assert verdict(folder)["word"] == "leak"


def test_an_arm_into_which_nothing_was_mixed_needs_no_lineage(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    _rows(folder, lineage=None, alpha=0.0)
    assert verdict(folder)["word"] == "helps"


def test_the_guard_rail_has_no_verdict_either(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    guard = {"fraction": 0.1, "model": "net", "arm": "S3", "alpha": 0.4, "guarded": 0.4, "validation_accuracy": {}}
    change(folder / "rows.json", guard=[guard])
    _rows(folder, lineage=None)
    write_report(folder)
    assert read_json(folder / "report.json")["guards"][0]["verdict"] == "lineage unchecked"


@pytest.mark.fault("leaks: verdicts withheld without proof of lineage")
def test_an_image_that_a_row_was_tested_on_is_a_leak_whatever_the_budget_says(tmp_path: Path) -> None:
    """The budget is written anew, whole, with the image in the training part: the predictions still name it."""
    folder = experiment(tmp_path)
    trained_with(folder, image(7, "test").sha256)
    other = budget(folder)
    moved = tuple(image(number, "train" if number == 7 else record.split) for number, record in enumerate(other.images))
    write_manifest(type(other)(other.root, other.classes, moved), folder / "budgets" / "0.1-0.jsonl")
    assert verdict(folder)["word"] == "helps"  # so far nothing contradicts
    names = np.array([record.sha256 for record in other.of("test")])
    np.savez(
        folder / "p.npz", labels=np.zeros(3, dtype=np.int64), logits=np.ones((3, 2), dtype=np.float32), image=names
    )
    _rows(folder, predictions="p.npz")
    found = verdict(folder)
    assert (found["word"], found["text"]) == (
        "leak", "Barred from a verdict: S3 was tested on 1 of the images behind its set.",
    )  # fmt: skip


@pytest.mark.slow
def test_a_finished_ablation_proves_itself_also_without_its_sets(tmp_path: Path) -> None:
    manifest = tiny_ablation.scanned(tmp_path)
    out = tmp_path / "out"
    run_ablation(tiny_ablation.options(out, pairs=1), tiny_ablation.CONFIG, manifest, tiny_ablation.fake_sets)
    header = read_json(out / "rows.json")
    rows, _ = parse_rows(header["rows"])
    assert {row.arm for row in rows} == {"R1", "R2", "S1", "S3"}
    assert unproved(out, rows, header) == {}
    for folder in ("synthetic", "pools"):
        shutil.rmtree(out / folder, ignore_errors=True)
    shutil.rmtree(tmp_path / "train")  # photographs are not published either
    assert unproved(out, rows, header) == {}
    shutil.rmtree(out / "lineages")
    assert len(unproved(out, rows, header)) == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, True),
        ({"train_images": 40, "labelled_budget": {"0.5": 20, "1": 40}}, True),
        ({"train_images": 40, "labelled_budget": {"1": 40}}, False),
        ({"train_images": 40, "labelled_budget": {"1": "all"}}, True),
    ],
)
def test_images_outside_the_budget_are_spoken_of_where_there_are_any(data: dict[str, object], said: bool) -> None:
    found = words.notes([], {"gan_data": "u"}, data)
    seen = "The generator also saw the training images outside the budget, without labels"
    assert found == ([f"{seen}; its fair control, R5, was not run."] if said else [])
