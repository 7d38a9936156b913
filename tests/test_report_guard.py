"""The guard rail and the marks of a generator on the page of the report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from fake_experiment import write
from fake_lineage import with_lineage

from finegan_aug.report import write_report
from finegan_aug.report.words import knows_imagenet

ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
FEATURES = "The generator was trained against frozen ImageNet features; compare with a control that uses them."
R2, S3 = (0.50, 0.52, 0.51), (0.55, 0.58, 0.575)


def experiment(folder: Path, guard: object, **header: object) -> Path:
    """Three pairs of R2 and S3 at 10 %, S3 above R2 by 5 to 6.5 points."""
    rows = [
        {"fraction": 0.1, "arm": arm, "model": "net", "pair": pair, "accuracy": accuracy}
        for arm, values in (("R2", R2), ("S3", S3))
        for pair, accuracy in enumerate(values)
    ]
    write(folder / "rows.json", with_lineage(folder, {"rows": rows, "guard": guard, **header}))
    return folder


def choice(guarded: float, **more: object) -> dict[str, object]:
    found = {"0": 0.5, "0.4": 0.6 if guarded else 0.475}
    entry = {"fraction": 0.1, "model": "net", "arm": "S3", "alpha": 0.4, "guarded": guarded}
    return {**entry, "validation_accuracy": found, **more}


def text_of(folder: Path) -> str:
    page = re.sub(r"<style.*?</style>|<svg.*?</svg>", " ", write_report(folder).read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_where_validation_found_no_gain_r2_itself_is_shipped_with_a_difference_of_exactly_0(tmp_path: Path) -> None:
    text = text_of(experiment(tmp_path, [choice(0.0)]))
    sentence = f"on validation {ALPHA} = 0.4, the best above 0, gained nothing over R2 (47.5 % against 50.0 %), so"
    assert f"Guard rail: {sentence} synthetic images are turned off: R2 is shipped, difference 0." in text
    report = json.loads((tmp_path / "report.json").read_text())
    (guard,) = report["guards"]
    assert (guard["shipped"], guard["verdict"]) == (0.0, "off")
    assert guard["comparison"]["differences"] == [0.0, 0.0, 0.0]
    cells = {cell["arm"]: cell for cell in report["cells"]}
    assert list(cells) == ["R2", "S3", "S*"]  # beside S3
    assert [accuracy for _, accuracy in cells["S*"]["values"]] == list(R2)
    assert report["headlines"][0]["word"] == "helps"  # of S3 on the test images: the arm is shown all the same
    assert "off 0.0 0.0 · 0.0 · 0.0" in text


def test_where_validation_found_a_gain_the_choice_is_the_synthetic_arm(tmp_path: Path) -> None:
    text = text_of(experiment(tmp_path, [choice(0.4)]))
    assert f"Guard rail: on validation {ALPHA} = 0.4 gained over R2 (60.0 % against 50.0 %), so S3 is shipped." in text
    report = json.loads((tmp_path / "report.json").read_text())
    (guard,), (contrast,) = report["guards"], report["contrasts"]
    assert (guard["shipped"], guard["verdict"]) == (0.4, "helps")
    assert guard["comparison"] == contrast["comparison"]
    cells = {cell["arm"]: cell for cell in report["cells"]}
    assert cells["S*"]["values"] == cells["S3"]["values"]


@pytest.mark.parametrize(("guarded", "verdict", "shipped"), [(0.0, "off", "R1"), (0.4, "hurts", "S3")])
def test_the_control_is_r1_where_r1_was_better_on_validation(
    tmp_path: Path, guarded: float, verdict: str, shipped: str
) -> None:
    """S3 beats R2, on which it builds, and not R1: to ship it would lose what R1 has."""
    guard = choice(guarded, control="R1", control_accuracy=0.61)
    r1 = [
        {"fraction": 0.1, "arm": "R1", "model": "net", "pair": pair, "accuracy": accuracy + 0.05}
        for pair, accuracy in enumerate(S3)
    ]
    experiment(tmp_path, [guard])
    content = json.loads((tmp_path / "rows.json").read_text())
    content["rows"] += r1
    content["primary"] = {"arm": "S3", "control": "R1"}
    write(tmp_path / "rows.json", content)
    text = text_of(tmp_path)
    if guarded:
        assert f"on validation {ALPHA} = 0.4 gained over R1 (60.0 % against 61.0 %), so S3 is shipped." in text
    else:
        assert "gained nothing over R1 (47.5 % against 61.0 %), so synthetic images are turned off: R1 is" in text
    report = json.loads((tmp_path / "report.json").read_text())
    (found,) = report["guards"]
    assert (found["control"], found["verdict"]) == ("R1", verdict)
    cells = {cell["arm"]: cell for cell in report["cells"]}
    assert cells["S*"]["values"] == cells[shipped]["values"]


def test_the_choice_counts_neither_as_a_classifier_nor_as_a_contrast(tmp_path: Path) -> None:
    text = text_of(experiment(tmp_path, [choice(0.4)]))
    assert "trained classifiers 6" in text
    assert len(json.loads((tmp_path / "report.json").read_text())["contrasts"]) == 1
    with open(tmp_path / "tables" / "runs.csv") as stream:
        assert {line["arm"] for line in csv.DictReader(stream)} == {"R2", "S3"}
    with open(tmp_path / "tables" / "guard.csv") as stream:
        (line,) = csv.DictReader(stream)
    assert (line["shipped"], line["verdict"]) == ("0.4", "helps")


def test_without_a_choice_on_validation_no_guard_rail_is_claimed(tmp_path: Path) -> None:
    claim = f"{ALPHA} was not chosen on validation: no guard rail is claimed."
    assert claim in text_of(experiment(tmp_path, []))
    text = text_of(experiment(tmp_path, None))  # a folder that says nothing about it
    assert claim not in text
    assert "Guard rail" not in text
    assert "S*" not in text


@pytest.mark.parametrize(
    "guard",
    [3, "x", [3], [{}], [choice(0.0, fraction="0.1")], [choice(0.0, model="other")], [choice(0.0, alpha=None)]],
)
def test_an_entry_of_another_shape_is_left_out(tmp_path: Path, guard: object) -> None:
    text_of(experiment(tmp_path, guard))
    assert json.loads((tmp_path / "report.json").read_text())["guards"] == []


def test_a_choice_without_its_rows_is_not_run(tmp_path: Path) -> None:
    text_of(experiment(tmp_path, [choice(0.4, arm="S1", validation_accuracy=3)]))
    (guard,) = json.loads((tmp_path / "report.json").read_text())["guards"]
    assert (guard["verdict"], guard["comparison"], guard["accuracies"]) == ("not run", None, [])


def test_a_control_of_its_own_for_each_setting_is_the_primary_contrast(tmp_path: Path) -> None:
    rows = [
        {"fraction": fraction, "arm": arm, "model": "net", "pair": pair, "accuracy": accuracy + pair / 100}
        for fraction in (0.1, 0.5)
        for arm, accuracy in (("R1", 0.5), ("R2", 0.4), ("S3", 0.45))
        for pair in range(3)
    ]
    primary = [{"arm": "S3", "control": "R1", "fraction": 0.1, "model": "net"}]
    primary += [{"arm": "S3", "control": "R2", "fraction": 0.5, "model": "net"}]
    write(tmp_path / "rows.json", with_lineage(tmp_path, {"rows": rows, "primary": primary}))
    write_report(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(line["fraction"], line["control"], line["word"]) for line in report["headlines"]] == [
        (0.1, "R1", "hurts"),
        (0.5, "R2", "helps"),
    ]
    shown = {(c["fraction"], c["control"]) for c in report["contrasts"] if c["arm"] == "S3"}
    assert shown == {(0.1, "R1"), (0.1, "R2"), (0.5, "R1"), (0.5, "R2")}  # the matched one beside every primary one


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ({"config": {"judge": "projected"}}, True),
        ({"config": {"judge": "trunk", "teacher": "packaged"}}, True),
        ({"config": {"judge": "trunk", "teacher": "small"}}, False),
        ({"config": {}}, False),
        ({"config": 3}, False),
        ({}, False),
    ],
)
def test_a_generator_that_knows_imagenet_is_marked_at_the_top(
    tmp_path: Path, config: dict[str, object], known: bool
) -> None:
    assert knows_imagenet(config) is known
    experiment(tmp_path, [])
    write(tmp_path / "gan" / "10-0" / "config.json", config)
    assert (FEATURES in text_of(tmp_path)) is known


def with_fair_controls(folder: Path, **header: object) -> str:
    """R5 9 points above S3, D2 on average as good; the text of the page."""
    experiment(folder, [choice(0.4)], **header)
    content = json.loads((folder / "rows.json").read_text())
    content["rows"] += [
        {"fraction": 0.1, "arm": arm, "model": "net", "pair": pair, "accuracy": accuracy + change}
        for arm, changes in (("R5", (0.09, 0.09, 0.09)), ("D2", (0.01, -0.01, 0.0)))
        for pair, (accuracy, change) in enumerate(zip(S3, changes, strict=True))
    ]
    write(folder / "rows.json", content)
    return text_of(folder)


def test_beside_the_verdict_stand_the_controls_that_know_what_the_images_rest_on(tmp_path: Path) -> None:
    write(tmp_path / "gan" / "10-0" / "config.json", {"config": {"teacher": "packaged"}})
    text = with_fair_controls(tmp_path)
    assert (
        "Against the same teacher without a synthetic image: inconclusive. S3 equals D2 "
        "(95 % interval \N{MINUS SIGN}2.5 to +2.5, 3 pairs)." in text
    )
    assert "Against the unlabelled photographs themselves: hurts. S3 is 9.0 points below R5 " in text
    assert FEATURES not in text
    assert (
        "The generator was trained against frozen ImageNet features; its control D2 has a teacher on such features."
        in text
    )


def test_a_teacher_without_these_features_is_no_control_of_them(tmp_path: Path) -> None:
    write(tmp_path / "gan" / "10-0" / "config.json", {"config": {"judge": "projected", "teacher": "own"}})
    assert FEATURES in with_fair_controls(tmp_path)


def test_no_control_stands_beside_images_that_are_barred_from_a_verdict(tmp_path: Path) -> None:
    text = with_fair_controls(tmp_path, lineage_checked=False)
    assert "Barred from a verdict" in text
    assert "Against the same teacher" not in text


def test_the_mark_also_stands_where_the_generator_lies_in_another_folder(tmp_path: Path) -> None:
    assert FEATURES in text_of(experiment(tmp_path, [], imagenet_features=True))
