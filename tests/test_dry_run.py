"""A dry run does what the run would do, briefly, says what it would cost, and leaves nothing."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_training import command_line
from tiny_runs import BATCH, files, rows, status, tiny_config

from finegan_aug import dry_run as dry
from finegan_aug.checkpoint import latest_checkpoint
from finegan_aug.cli import main
from finegan_aug.data.manifest import Manifest
from finegan_aug.dry_run import DryRunReport, dry_run
from finegan_aug.errors import ConfigError, DataError, WorldSizeError
from finegan_aug.pseudo_labels import TEACHER_KIMG
from finegan_aug.training import train


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that the dry run trains in, each copied away before it is removed."""
    kept: list[Path] = []

    def training(config: object, data: object, run_dir: Path, **options: object) -> Path:
        train(config, data, run_dir, **options)  # type: ignore[arg-type]
        copy = run_dir.parent / f"copy-{len(kept)}"
        kept.append(Path(shutil.copytree(run_dir, copy)))
        return run_dir

    monkeypatch.setattr(dry, "train", training)
    return kept


def test_it_makes_real_steps_across_a_checkpoint_and_leaves_nothing(
    toy_data: Manifest, tmp_path: Path, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    started_sec = time.monotonic()
    config = tiny_config(total_kimg=50.0, hard_negative_kimg=11.8)  # a phase longer than the steps of a dry run
    report = dry_run(config, toy_data, tmp_path / "not" / "yet" / "there")
    assert time.monotonic() - started_sec < 30
    assert report is not None
    first, second = folders
    assert [row["step"] for row in rows(first)] == [1, 2]
    steps = [row["step"] for row in rows(second)]
    assert steps == list(range(1, len(steps) + 1))
    assert 4 <= len(steps) <= 24
    assert status(second)["seen_images"] == BATCH * len(steps)
    assert {path.name for path in tmp_path.iterdir()} == {"copy-0", "copy-1"}

    checkpoint = latest_checkpoint(second)
    assert checkpoint is not None
    assert report.checkpoint_bytes == sum(file.stat().st_size for file in checkpoint.iterdir())
    crops = sum(file.stat().st_size for file in (second / "crops").rglob("*"))
    assert report.crops_bytes == pytest.approx(crops, rel=0.2)  # folders have a size of their own here
    assert report.disk_bytes == report.crops_bytes + 3 * report.checkpoint_bytes
    assert report.sec_per_kimg == pytest.approx(report.step_sec * 125)
    assert report.total_sec == pytest.approx(50 * report.sec_per_kimg + 2.5 * report.save_sec)
    assert 50e6 < report.memory_bytes < 20e9
    assert 0 < report.save_sec < 20

    said = capsys.readouterr().out.splitlines()
    assert "num_children: 12" in said
    assert "child_to_parent: [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]" in said
    assert said[-2:] == str(report).splitlines()


@pytest.fixture
def report() -> DryRunReport:
    return DryRunReport(
        step_sec=0.5,
        sec_per_kimg=15.625,
        save_sec=1.26,
        total_sec=7812.5,
        memory_bytes=2_500_000_000,
        checkpoint_bytes=35_400_000,
        crops_bytes=200_000_000,
        disk_bytes=306_200_000,
        free_bytes=80_000_000_000,
        warnings=("the disk is slow",),
    )


def test_the_report_says_it_in_two_lines_and_warns(report: DryRunReport) -> None:
    assert str(report) == (
        "a step takes 0.500 s, the training about 2.17 h, 2.50 GB of memory and 0.31 GB of 80 GB free on the disk\n"
        "15.6 s per kimg; a checkpoint is 35.4 MB, saved in 1.3 s; the crops are 200.0 MB\n"
        "warning: the disk is slow"
    )
    config = tiny_config().resolve(12)
    unlabelled = Manifest(Path(), ("a", "b"), ())
    assert list(dry._warnings(config, unlabelled, report)) == []
    full = replace(report, free_bytes=300_000_000, save_sec=19.6)
    assert list(dry._warnings(config, unlabelled, full)) == [
        "the disk is too small: free space or choose another --out",
        "a step and a checkpoint take over 20 s: a launcher that is stopped may cut them off",
    ]


@pytest.mark.parametrize(("teacher", "words"), [("own", "its 16 kimg are"), ("packaged", "that is")])
def test_the_cost_of_a_teacher_is_announced_where_it_is_asked(
    report: DryRunReport, toy_data: Manifest, teacher: str, words: str
) -> None:
    images = tuple(replace(image, labelled=i % 2 == 0) for i, image in enumerate(toy_data.images))
    config = tiny_config(teacher=teacher).resolve(12)
    told = list(dry._warnings(config, replace(toy_data, images=images), report))
    assert told == [f"a teacher will first name unlabelled images; {words} not counted here"]
    assert list(dry._warnings(config, toy_data, report)) == []


def test_many_photographs_are_thinned_and_a_teacher_is_announced_not_trained(
    toy_data: Manifest, tmp_path: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry, "MAX_IMAGES", 20)
    monkeypatch.setattr(dry, "STEPS_SEC", 0.0)
    images = [replace(image, labelled=i % 2 == 0) for i, image in enumerate(toy_data.images)]
    report = dry_run(tiny_config(), replace(toy_data, images=tuple(images)), tmp_path / "run")
    assert report is not None
    assert report.warnings == (
        f"a teacher will first name unlabelled images; its {TEACHER_KIMG:.0f} kimg are not counted here",
    )
    assert not (folders[1] / "teacher").exists()
    cut = sum(file.stat().st_size for file in (folders[1] / "crops").rglob("*") if file.is_file())
    assert report.crops_bytes == cut * 48 // 24  # every second: 12 codes need 24 images


def test_a_run_that_is_there_is_not_touched(
    trained_run: Path,
    toy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(dry, "STEPS_SEC", 0.0)
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    assert main(command_line(toy_folder, run, "--dry-run", "--lr", "0.01")) == 0
    assert re.search(r"lr: 0.01\n", capfd.readouterr().out)
    assert files(run) == files(trained_run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_the_run_would_refuse_is_refused_and_nothing_is_left(toy_data: Manifest, tmp_path: Path) -> None:
    with pytest.raises(WorldSizeError, match="the run must have 3 processes as asked, found 1"):
        dry_run(tiny_config(), toy_data, tmp_path / "run", expect_processes=3)
    with pytest.raises(ConfigError, match="num_classes is 5 but the data have 12 classes"):
        dry_run(tiny_config(num_classes=5), toy_data, tmp_path / "run")
    without = replace(toy_data, images=tuple(replace(image, box=None) for image in toy_data.images))
    with pytest.raises(DataError, match="add the missing boxes or choose boxes=none"):
        dry_run(tiny_config(), without, tmp_path / "run")
    assert not list(tmp_path.iterdir())
