"""Where somebody's own files are, nothing is written, taken over or removed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_ablation
from PIL import Image
from small_sets import real_folder, synthetic_folder
from tiny_runs import assert_same_run, command_line, files

from finegan_aug.cli import main
from finegan_aug.errors import CheckpointError, ConfigError, LeakError
from finegan_aug.files import read_json, write_json
from finegan_aug.run_folder import run_lock
from finegan_aug.synthesis import synthesize
from finegan_aug.synthetic import read_rows, write_manifest
from recipes import ablation
from recipes.ablation import run_ablation
from recipes.train_classifier import main as train_classifier


def refused(capsys: pytest.CaptureFixture[str], line: list[str]) -> tuple[int, list[str]]:
    code = main(line)
    return code, [text for text in capsys.readouterr().err.splitlines() if text.startswith(("error: ", "fix: "))]


@pytest.mark.fault("resume: somebody's own files left alone")
@pytest.mark.parametrize("below", [".", "run", "bird_hooded/run"])
def test_no_output_lies_inside_the_photographs(
    below: str, toy_folder: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next scan would take grids and synthetic images for photographs; some grids show training images."""
    photographs = Path(shutil.copytree(toy_folder, tmp_path / "photographs"))
    out, before = photographs / "train" / below, files(photographs)
    answer = (2, [f"error: --out must not lie inside the photographs, found {out} in {photographs / 'train'}",
                  "fix: choose another --out"])  # fmt: skip
    assert refused(capsys, command_line(photographs, out)) == answer
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    data = (run / "data.jsonl").read_text().replace(str(toy_folder), str(photographs))
    (run / "data.jsonl").write_text(data)
    assert refused(capsys, ["synthesize", str(run), "--out", str(out)]) == answer
    assert files(photographs) == before


@pytest.mark.fault("resume: somebody's own files left alone")
def test_recipes_write_nothing_into_the_photographs_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tiny_ablation.scanned(tmp_path / "photographs")
    inside = manifest.root / "out"
    with pytest.raises(ConfigError, match="--out must not lie inside the photographs, found "):
        run_ablation(tiny_ablation.options(inside, arms=("R1",)), tiny_ablation.CONFIG, manifest)
    line = ["--data", str(manifest.root), "--out", str(inside), "--model", tiny_ablation.MODEL]
    with pytest.raises(ConfigError, match="--out must not lie inside the photographs, found "):
        train_classifier(line)
    assert not inside.exists()


def test_a_slip_in_an_ablation_leaves_the_folder_to_the_corrected_command(tmp_path: Path) -> None:
    """Nothing is written before all options are known to fit, the generator's among them."""
    manifest = tiny_ablation.scanned(tmp_path / "photographs")
    asked = tiny_ablation.options(tmp_path / "out", arms=("R1", "S1"))
    with pytest.raises(ConfigError, match="--generator must name a file, found none at flower"):
        run_ablation(replace(asked, generator="flower"), tiny_ablation.CONFIG, manifest)
    run_ablation(replace(asked, arms=("R1",)), tiny_ablation.CONFIG, manifest)
    with pytest.raises(CheckpointError) as caught:
        run_ablation(replace(asked, arms=("R1",), per_class=7), tiny_ablation.CONFIG, manifest)
    assert caught.value.remedy == "give the options of the experiment that is there, or choose another --out"
    with pytest.raises(ConfigError, match="pairs must be at most 1000, found 1000000000"):
        tiny_ablation.options(tmp_path / "out", pairs=10**9)


@pytest.mark.fault("resume: somebody's own files left alone")
def test_a_folder_of_images_does_not_become_a_synthetic_set(trained_run: Path, tmp_path: Path) -> None:
    """Photographs whose names happen to be ours would be overwritten, the others listed as synthetic."""
    mine = tmp_path / "mine"
    (mine / "bird_hooded").mkdir(parents=True)
    Image.new("RGB", (32, 32), "red").save(mine / "bird_hooded" / "00000000.png")
    before = files(mine)
    with pytest.raises(ConfigError) as caught:
        synthesize(trained_run, mine, per_class=2)
    assert caught.value.cause == f"{mine} must be empty or hold a synthetic set, found bird_hooded"
    assert caught.value.remedy == "choose another --out"
    assert files(mine) == before


@pytest.mark.fault("resume: somebody's own files left alone")
def test_images_do_not_go_through_a_link_to_another_folder(trained_run: Path, tmp_path: Path) -> None:
    out = synthesize(trained_run, tmp_path / "set", per_class=1)
    shutil.rmtree(out / "bird_hooded")
    (tmp_path / "elsewhere").mkdir()
    (out / "bird_hooded").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        ConfigError, match="must hold no link, through which images would go elsewhere, found bird_hood"
    ):
        synthesize(trained_run, out, per_class=1)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("damage", [b"", b"other bytes"])
def test_an_image_that_is_not_as_it_was_written_is_drawn_again(
    damage: bytes, trained_run: Path, tmp_path: Path
) -> None:
    whole, out = (synthesize(trained_run, tmp_path / name, per_class=3) for name in ("whole", "set"))
    (out / "bird_hooded" / "00000001.png").write_bytes(damage)
    synthesize(trained_run, out, per_class=3)
    assert files(out) == files(whole)


def test_a_set_does_not_shrink_and_its_filter_stays(trained_run: Path, tmp_path: Path) -> None:
    out = synthesize(trained_run, tmp_path / "set", per_class=3)
    before = files(out)
    for fewer, cause in ((2, f"per_class must be at least 3, as many as {out} holds, found 2"),
                         (0, "per_class must be at least 1, found 0")):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            synthesize(trained_run, out, per_class=fewer)
        assert caught.value.cause == cause
    assert files(out) == before


@pytest.mark.fault("resume: somebody's own files left alone")
@pytest.mark.parametrize("name", ["config.json", "data.jsonl", "status.json", "LOCK"])
def test_training_writes_over_no_file_of_somebody_else(
    name: str, toy_folder: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"my": "app"}\n')
    code, said = refused(capsys, command_line(toy_folder, out))
    answers = {
        "config.json": (4, f"error: {out}/config.json must be that of a training run, found another file"),
        "LOCK": (74, f"error: {out}/LOCK must be the note of a run, found another file"),
    }
    expected, cause = answers.get(name, (2, f"error: {out} must be empty or hold a training run, found {name}"))
    assert (code, said) == (expected, [cause, "fix: choose another --out"])
    assert files(out) == {name: b'{"my": "app"}\n'}
    (out / name).rename(out / "notes.txt")
    assert main(command_line(toy_folder, out)) == 0  # what is not in the way stays
    assert (out / "notes.txt").exists()
    assert_same_run(out, trained_run)


@pytest.mark.fault("resume: somebody's own files left alone")
def test_only_what_bears_our_own_names_is_removed_as_left_half_written(tmp_path: Path) -> None:
    mine = [".notes.tmp", "below/.x.tmp", "checkpoints/.tmp-mine/a", ".folder.7.tmp/a", "checkpoints/.trash-old/a"]
    ours = [".a.png.123.tmp", "below/.manifest.jsonl.7.tmp", "checkpoints/.tmp-8-1-ab/a",
            "checkpoints/.trash-step-000000008-ab/a"]  # fmt: skip
    for name in (*mine, *ours):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    with run_lock(tmp_path):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*mine, ".lock", "LOCK"}


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_test_photographs_without_a_lineage_are_not_mixed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tiny_ablation.scanned(tmp_path / "photographs")
    small = ["--model", tiny_ablation.MODEL, "--resolution", "24", "--steps", "2", "--batch-size", "6"]
    line = ["--data", str(manifest.root), "--test-data", str(manifest.test_root), *small]
    with pytest.raises(LeakError, match=r"^no test image may be mixed into the training, found \d+ of them in "):
        train_classifier([*line, "--out", str(tmp_path / "leak"), "--synthetic", str(manifest.test_root)])
    other = real_folder(tmp_path / "other", classes=manifest.classes)
    with pytest.warns(UserWarning, match="other has no lineage: none of its images equals a test image, and nothing"):
        train_classifier([*line, "--out", str(tmp_path / "run"), "--synthetic", str(other), "--alpha", "0.5"])


def test_a_run_folder_of_other_data_is_refused_instead_of_its_old_result_being_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once four commands on other data, shares and mixes told the accuracy of the first."""
    manifest = tiny_ablation.scanned(tmp_path / "photographs")
    small = ["--model", tiny_ablation.MODEL, "--resolution", "24", "--steps", "2", "--batch-size", "2"]
    run = ["--out", str(tmp_path / "run")]
    line = ["--data", str(manifest.root), "--test-data", str(manifest.test_root), *small, *run]
    other = real_folder(tmp_path / "other", classes=manifest.classes)
    synthetic = synthetic_folder(tmp_path / "synthetic", classes=manifest.classes)
    train_classifier(line)
    first = capsys.readouterr().out
    train_classifier(line)
    assert capsys.readouterr().out == first  # a finished run is left as it is
    for changed in (
        ["--synthetic", str(synthetic)],
        ["--fraction", "0.5"],
        ["--pair", "3"],
        ["--data", str(other), "--test-once"],
    ):
        with pytest.raises(CheckpointError, match=r"belongs to another configuration \(trained_on\.") as caught:
            train_classifier([*line, *changed])
        assert caught.value.remedy == "give the options of that run, or choose another --out"
    kept = read_json(tmp_path / "run" / "config.json")
    write_json(tmp_path / "run" / "config.json", {name: kept[name] for name in ("classifier", "classes")})
    with pytest.warns(UserWarning, match="run does not say on which data it was trained"):
        train_classifier(line)  # a folder from before it did
    mix = [*line[:-1], str(tmp_path / "mixed"), "--synthetic", str(synthetic), "--alpha", "0.5"]
    train_classifier(mix)
    with pytest.raises(CheckpointError, match=r"\(trained_on.alpha: 0.5 -> 0.4\)"):
        train_classifier([*mix, "--alpha", "0.4"])
    header, rows = read_rows(synthetic)
    write_manifest(synthetic, header, [replace(rows[0], kept=False, dropped_by="blurred"), *rows[1:]])
    with pytest.raises(CheckpointError, match=r"\(trained_on.synthetic: "):
        train_classifier(mix)


def test_an_ablation_of_other_photographs_is_refused(tmp_path: Path) -> None:
    """Once --data was ignored wherever the folder already had photographs."""
    manifest = tiny_ablation.scanned(tmp_path / "photographs")
    small = f"--fractions [1.0] --pairs 1 --arms [R1,R2] --models [{tiny_ablation.MODEL}] --resolution 24"
    line = ["--out", str(tmp_path / "a"), *small.split(), "--steps", "1", "--batch-size", "2"]
    data = ["--data", str(manifest.root), "--test-data", str(manifest.test_root)]
    ablation.main([*data, *line])
    ablation.main(line)  # those of the folder
    ablation.main([*data, *line])
    with pytest.raises(CheckpointError, match=r"belongs to another configuration \(data: "):
        ablation.main(["--data", str(manifest.root), *line])  # a split of its own


def test_a_budget_without_a_validation_image_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ended in a TypeError, after the whole training."""
    manifest = tiny_ablation.scanned(tmp_path / "photographs")
    small = ["--model", tiny_ablation.MODEL, "--resolution", "24", "--steps", "2", "--batch-size", "2"]
    line = ["--data", str(manifest.root), "--test-data", str(manifest.test_root), *small, "--fraction", "0.05"]
    train_classifier([*line, "--out", str(tmp_path / "run"), "--test-once"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"no validation image; {tmp_path / 'run'}"
    assert second.startswith("test accuracy ")
