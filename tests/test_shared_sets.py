"""An ablation that takes its sets from another: nothing is copied, nothing is believed unchecked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_ablation import CONFIG, fake_sets, options, scanned

from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import ConfigError, LeakError
from finegan_aug.files import read_json, write_json
from finegan_aug.lineage import read_lineage, write_lineage
from recipes import ablation
from recipes.ablation import AblationOptions, run_ablation
from recipes.arms import ARMS
from recipes.sets import LATER, OF_THE_SETS, inherited

OTHER = replace(CONFIG, lr=1e-2)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scanned(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def source(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source")
    run_ablation(options(out, arms=("S3",), pairs=1), CONFIG, manifest, fake_sets)
    return out


def no_sets(*_: object) -> Path:
    pytest.fail("sets were made")


def test_sets_are_used_where_they_lie_for_other_classifiers(source: Path, manifest: Manifest, tmp_path: Path) -> None:
    arms = tuple(arm for arm in ARMS if arm not in ("D5", "S4"))  # no mask, no soft label
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    config = replace(OTHER, resolution=16)
    run_ablation(options(tmp_path, arms=arms, pairs=1, sets_from=source), config, manifest, no_sets)
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    assert not (tmp_path / "synthetic").exists()
    assert not (tmp_path / "gan").exists()
    header = read_json(tmp_path / "rows.json")
    (there,) = read_json(source / "rows.json")["rows"]
    found = {row["arm"]: row for row in header["rows"]}
    assert found["S3"]["lineage"] == there["lineage"] is not None
    assert found["S3"]["model_sha256"] != there["model_sha256"]
    assert found["S3"]["warnings"] == ["the filter kept 4 of 8"]
    assert header["lineage_checked"] is True
    assert read_json(tmp_path / "filter.json") == {"rows": [{"kept": 4}]}
    note = f"Generators and synthetic images are those of {source.name}, made for classifiers at 24 px."
    assert note in header["notes"]


def test_what_was_not_written_is_taken_over_from_the_other_ablation(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, seen = tmp_path / "source", []
    decided = {"generator": "demo", "per_class": 7, "teacher_kimg": 1.5}
    decided |= {"drop_lowest_confidence": 0.3, "drop_outliers": 0.2}
    asked = options(source, arms=("S3",), pairs=1, **decided)
    run_ablation(asked, CONFIG, manifest, fake_sets)
    assert inherited(None) == {}
    assert inherited(source) == {name: getattr(asked, name) for name in OF_THE_SETS}
    path = source / "ablation.json"
    content = read_json(path)
    for name in LATER:  # an ablation that knew no such option filtered by its default
        del content["options"][name]
    write_json(tmp_path / "older" / "ablation.json", content)
    assert inherited(tmp_path / "older") == {**inherited(source), **LATER}
    assert {name: getattr(AblationOptions(source), name) for name in LATER} == LATER

    def caught(options: AblationOptions, *_: object) -> Path:
        seen.append(options)
        return tmp_path

    monkeypatch.setattr(ablation, "run_ablation", caught)
    words = ["--data", str(source / "manifest.jsonl"), "--out", str(tmp_path / "out"), "--sets-from", str(source)]
    ablation.main(words)
    ablation.main([*words, "--per-class", "8"])
    assert [getattr(seen[0], name) for name in OF_THE_SETS] == [getattr(asked, name) for name in OF_THE_SETS]
    assert (seen[0].sets_from, seen[0].sets) == (source, source)
    assert seen[1].per_class == 8  # and is refused, see below


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"per_class": 8}, "per_class must be 500 as in {source}, whose sets are used, found 8; leave --per-class out"),
        ({"gan_data": "s"}, "gan_data must be u as in {source}, whose sets are used, found s; leave --gan-data out"),
        (
            {"fractions": (0.5, 1.0)},
            "{source} must hold the finished synthetic sets of budget 1-0, found none; "
            "finish that ablation first, or leave the fraction out",
        ),
        (
            {"alpha_grid": (0.3,)},
            "budget 0.5-0 must hold the same photographs, labels and splits as in {source}, found others; "
            "use the data and --seed of that ablation, and a grid only if it had one",
        ),
    ],
)
def test_sets_of_another_experiment_are_refused(
    source: Path, manifest: Manifest, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run_ablation(options(tmp_path, arms=("S3",), **changes, sets_from=source), OTHER, manifest, no_sets)
    assert str(caught.value) == words.format(source=source)
    # the corrected command finds a folder that belongs to nobody
    run_ablation(options(tmp_path, arms=("S3",), pairs=1, sets_from=source), OTHER, manifest, no_sets)


def test_another_seed_draws_another_budget_and_is_refused(source: Path, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget 0\.5-0 must hold the same photographs"):
        run_ablation(options(tmp_path, arms=("S3",), sets_from=source), replace(OTHER, seed=1), manifest, no_sets)


def test_sets_that_were_taken_from_elsewhere_are_named_at_their_source(
    source: Path, manifest: Manifest, tmp_path: Path
) -> None:
    run_ablation(options(tmp_path / "second", arms=("S3",), pairs=1, sets_from=source), OTHER, manifest, no_sets)
    with pytest.raises(ConfigError) as caught:
        run_ablation(options(tmp_path / "third", arms=("S3",), sets_from=tmp_path / "second"), OTHER, manifest)
    assert str(caught.value) == (
        f"sets_from must name the ablation that made the sets, found {tmp_path / 'second'}, which has them from "
        f"another; use --sets-from {source}"
    )


def test_the_firewall_stands_before_shared_sets_too(source: Path, manifest: Manifest, tmp_path: Path) -> None:
    leaking = tmp_path / "leaking"
    shutil.copytree(source, leaking)
    folder = leaking / "synthetic" / "0.5-0" / "filtered"
    lineage = read_lineage(folder)
    assert lineage is not None
    write_lineage(folder, lineage.with_role("gan_train", [manifest.of("test")[0].sha256]))
    with pytest.raises(LeakError, match="no test image may stand behind synthetic images"):
        run_ablation(options(tmp_path / "out", arms=("S3",), pairs=1, sets_from=leaking), OTHER, manifest, no_sets)


def test_a_validation_share_of_the_source_stays_held_back_from_its_sets(manifest: Manifest, tmp_path: Path) -> None:
    """With or without a choice of its own, the second ablation has the budgets of the first."""
    chosen = options(tmp_path / "source", arms=("R2", "S3"), pairs=1, alpha_grid=(0.3,))
    run_ablation(chosen, CONFIG, manifest, fake_sets)
    for name, more in (("fixed", {"alpha": 0.3}), ("chosen", {"alpha_grid": (0.6,)})):
        asked = options(tmp_path / name, arms=("R2", "S3"), pairs=1, sets_from=chosen.out, **more)
        run_ablation(asked, OTHER, manifest, no_sets)
        budgets = [(out / "budgets" / "0.5-0.jsonl").read_bytes() for out in (tmp_path / name, chosen.out)]
        assert budgets[0] == budgets[1]
