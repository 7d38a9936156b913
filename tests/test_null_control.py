"""The controls of the comparison itself: the null is repeated, the poison is made of another experiment's images."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_ablation import CONFIG, MODEL, fake_sets, options, scanned

from benchmarks import null_control
from finegan_aug.files import read_json
from finegan_aug.synthetic import read_rows
from recipes.ablation import run_ablation


def test_the_null_is_repeated_with_other_seeds_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ablation(options(tmp_path / "source", arms=("S1",), pairs=1), CONFIG, scanned(tmp_path / "photos"), fake_sets)
    command = [
        "--out",
        str(tmp_path / "null"),
        "--repetitions",
        "2",
        "--pairs",
        "1",
        "--poison-pairs",
        "1",
        "--steps",
        "2",
        "--model",
        MODEL,
    ]
    command += ["--resolution", "24", "--train-images", "120", "--test-images", "12"]
    null_control.main([*command, "--sets-from", str(tmp_path / "source")])
    assert "null: 2 of 2 repetitions inconclusive" in capsys.readouterr().out  # one pair carries no claim
    written = read_json(tmp_path / "null" / "null_control.json")
    results, config = written["results"], written["classifier"]
    assert written["null"]["mean"] == pytest.approx((results[0]["mean"] + results[1]["mean"]) / 2)
    assert config["synthetic_loss_weight"] == 1.0
    assert config["synthetic_label_smoothing"] == config["label_smoothing"]  # a copy is treated as a photograph is
    assert [(found["name"], found["arm"]) for found in results] == [
        ("null-0", "N0"),
        ("null-1", "N0"),
        ("poison", "P0"),
    ]
    drawn = [(tmp_path / "null" / f"null-{seed}" / "budgets" / "0.1-0.jsonl").read_bytes() for seed in range(2)]
    assert drawn[0] != drawn[1]
    _, rows = read_rows(tmp_path / "null" / "poison" / "pools" / "P0-0.5-0")
    assert len(rows) == 8

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "null").glob("*/cells/*/model.safetensors")}
    assert len(stamps) == 2 * 2 + 2
    monkeypatch.setattr("recipes.arms.train_classifier", lambda *_, **__: pytest.fail("a cell was trained again"))
    null_control.main([*command, "--sets-from", str(tmp_path / "source")])
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_the_verdict_is_that_of_the_paired_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known answer: 10 points lost in each of three pairs, with hardly any spread, is harm."""
    asked = options(tmp_path, arms=("R2", "P0"), pairs=3)
    rows = [{"arm": "R2", "accuracy": 0.5 + pair / 10} for pair in range(3)]
    rows += [{"arm": "P0", "accuracy": 0.4 + pair / 10 + pair / 1000} for pair in range(3)]

    def written(*_: object) -> Path:
        from finegan_aug.files import write_json

        write_json(tmp_path / "rows.json", {"rows": rows})
        return tmp_path / "rows.json"

    monkeypatch.setattr(null_control, "run_ablation", written)
    found = null_control.verdict(asked, CONFIG, scanned(tmp_path / "photos"))
    assert found["verdict"] == "hurts"
    assert found["mean"] == pytest.approx(-0.099)
    assert found["differences"] == pytest.approx((-0.1, -0.099, -0.098))
    assert null_control.in_points(found["mean"], found["interval"]) == "-9.9 points (-10.1 to -9.7)"
