"""Training as a user meets it: what a run leaves, how it goes on after every kind of end, what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tiny_runs import BATCH, assert_same_run, command_line, files, rows, status, tiny_config

from finegan_aug import preparation, run_evaluation, training, update
from finegan_aug.checkpoint import load_checkpoint
from finegan_aug.cli import main
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.toy import TOY_CLASSES
from finegan_aug.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    RunLockedError,
    StorageError,
    WorldSizeError,
)
from finegan_aug.metrics_log import MetricsLog
from finegan_aug.models.game import FineGAN
from finegan_aug.run_folder import run_lock
from finegan_aug.sizes import check_sizes
from finegan_aug.training import real_images, train
from finegan_aug.training_state import TrainingState


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / "run"))


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def at_row(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Does something in the middle of the loop: right after line `number` of metrics.jsonl was written."""
    written, append = [0], MetricsLog.append

    def acting(self: MetricsLog, row: dict[str, float | int]) -> None:
        append(self, row)
        written[0] += 1
        if written[0] == number:
            act()

    monkeypatch.setattr(MetricsLog, "append", acting)


def test_a_run_leaves_its_configuration_status_metrics_grids_and_last_checkpoint(trained_run: Path) -> None:
    config = json.loads((trained_run / "config.json").read_text())
    assert config["classes"] == list(TOY_CLASSES)
    assert config["config"]["num_children"] == 12
    assert config["config"]["child_to_parent"] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert status(trained_run) == {"state": "done", "exit_code": 0, "seen_images": 80, "message": ""}
    found = rows(trained_run)
    assert [row["step"] for row in found] == list(range(1, 11))
    assert [row["seen_images"] for row in found] == list(range(8, 88, 8))
    assert {"background_real", "child_class", "g_child", "g_parent_code", "g_child_code"} <= set(found[0])
    assert checkpoints(trained_run) == ["step-000000010"]
    assert Image.open(trained_run / "reals.png").size == (8 * 33 - 1, 8 * 33 - 1)
    for name in ("init", "000000"):
        assert Image.open(trained_run / f"fakes_{name}.png").size == (8 * 33 - 1, 8 * 33 - 1)
        assert Image.open(trained_run / f"codes_{name}.png").size == (8 * 33 - 1, 12 * 33 - 1)
        assert Image.open(trained_run / f"stages_{name}.png").size == (5 * 33 - 1, 8 * 33 - 1)
    assert (trained_run / "fakes_init.png").read_bytes() != (trained_run / "fakes_000000.png").read_bytes()
    assert not (trained_run / "LOCK").exists()


def test_the_same_command_on_a_finished_run_changes_no_byte(
    trained_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    run = copied(trained_run, tmp_path)
    assert train(tiny_config(), toy_data, run) == run
    assert files(run) == files(trained_run)


def test_a_longer_training_goes_on_where_the_shorter_one_ended(
    trained_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(tiny_config(total_kimg=0.04), toy_data, run)
    assert status(run)["seen_images"] == 40
    train(tiny_config(), toy_data, run)
    assert_same_run(run, trained_run)


@pytest.mark.fault("resume: stopped or broken off, same bits")
def test_a_run_that_broke_off_equals_an_undisturbed_one_bit_for_bit(
    trained_run: Path, toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    config = tiny_config(checkpoint_kimg=0.032, grid_kimg=0.016)  # neither interval changes what is learnt

    def fall_over() -> None:
        raise RuntimeError("out of memory\nand more")

    at_row(monkeypatch, 7, fall_over)
    torch.manual_seed(5)  # nor does the global generator
    generator_state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, toy_data, run)
    assert torch.equal(torch.get_rng_state(), generator_state)
    assert status(run) == {"state": "failed", "exit_code": 1, "seen_images": 32, "message": "out of memory"}
    assert checkpoints(run) == ["step-000000004"]
    assert len(rows(run)) == 7

    monkeypatch.undo()
    train(config, toy_data, run)
    assert status(run)["state"] == "done"
    assert_same_run(run, trained_run)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.fault("resume: stopped or broken off, same bits")
def test_a_stopped_run_saves_at_once_and_goes_on_bit_for_bit(
    trained_run: Path,
    toy_data: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    run = tmp_path / "run"
    before = signal.getsignal(number)
    at_row(monkeypatch, 4, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        train(tiny_config(), toy_data, run)
    assert stopped.value.code == code
    assert signal.getsignal(number) == before
    assert checkpoints(run) == ["step-000000005"]
    message = "stopped on request; run the same command to go on"
    assert status(run) == {"state": "stopped", "exit_code": code, "seen_images": 40, "message": message}
    monkeypatch.undo()
    train(tiny_config(), toy_data, run)
    assert_same_run(run, trained_run)


@pytest.mark.fault("resume: stopped or broken off, same bits")
def test_a_run_stopped_between_two_log_lines_writes_the_lines_of_one_that_was_not(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(log_kimg=0.04)
    whole, run, calls = train(config, toy_data, tmp_path / "whole"), tmp_path / "run", [0]
    gradient_norm = update.gradient_norm

    def stopping(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 13:  # in the seventh step: two a step
            os.kill(os.getpid(), signal.SIGTERM)
        return gradient_norm(optimizer)

    monkeypatch.setattr(update, "gradient_norm", stopping)
    with pytest.raises(SystemExit):
        train(config, toy_data, run)
    assert [row["step"] for row in rows(run)] == [5]
    assert checkpoints(run) == ["step-000000007"]
    monkeypatch.undo()
    train(config, toy_data, run)
    assert [row["step"] for row in rows(run)] == [5, 10]
    assert_same_run(run, whole)


@pytest.mark.fault("resume: stopped or broken off, same bits")
def test_a_killed_command_goes_on_when_it_is_typed_again(
    trained_run: Path, toy_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another process, so that it can die as in a power cut: with its first checkpoint renamed, nothing else tidied."""
    run = tmp_path / "run"
    line = command_line(toy_folder, run)
    script = (
        "import sys, torch; torch.set_num_threads(1); from finegan_aug.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, *line],
        env=os.environ | {"FINEGAN_AUG_FAIL": "ckpt.before-prune"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr.decode()
    assert status(run)["state"] == "running"
    assert (run / "LOCK").exists()
    assert main(line) == 0
    said = capfd.readouterr().err
    assert re.search(rf"warning: {run}: process \d+ was killed; going on\n", said)
    assert "0.1/0.1 kimg (100 %)" in said
    assert not (run / "LOCK").exists()
    assert_same_run(run, trained_run)


@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_another_configuration_is_refused_with_the_difference_and_nothing_is_touched(
    trained_run: Path, toy_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained_run, tmp_path)
    assert main(command_line(toy_folder, run, "--lr", "0.002", "--ndf", "8", "--total_kimg", "0.2")) == 4
    assert capfd.readouterr().err == (
        "error: the run folder belongs to another configuration (config.lr: 0.001 -> 0.002; config.ndf: 4 -> 8)\n"
        "fix: use --overwrite or another --out\n"
    )
    assert files(run) == files(trained_run)


def test_a_run_from_before_an_option_goes_on_as_if_the_option_were_off(
    trained_run: Path, toy_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained_run, tmp_path)
    content = json.loads((run / "config.json").read_text())
    del content["config"]["spread_weight"], content["config"]["choose_checkpoint"]
    (run / "config.json").write_text(json.dumps(content))
    assert main(command_line(toy_folder, run, "--spread_weight", "2")) == 4
    assert "(config.spread_weight: 0.0 -> 2.0)" in capfd.readouterr().err
    assert main(command_line(toy_folder, run)) == 0
    assert_same_run(run, trained_run)


@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_other_photographs_are_refused(trained_run: Path, toy_data: Manifest, tmp_path: Path) -> None:
    run = copied(trained_run, tmp_path)
    fewer = replace(toy_data, images=tuple(image for image in toy_data.images if image.path != toy_data.images[0].path))
    with pytest.raises(CheckpointError, match="data_sha256"):
        train(tiny_config(), fewer, run)
    assert files(run) == files(trained_run)


def test_overwrite_sets_the_old_run_aside_with_all_that_was_said_about_it(
    trained_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    run = copied(trained_run, tmp_path)
    (run / "audit.json").write_text("{}")  # of the old codes
    train(tiny_config(lr=2e-3, total_kimg=0.016), toy_data, run, overwrite=True)
    assert checkpoints(run) == ["step-000000002"]
    assert [row["step"] for row in rows(run)] == [1, 2]
    assert not (run / "audit.json").exists()
    (aside,) = run.glob(".overwritten-*")
    crops = {name for name in files(trained_run) if name.startswith("crops/")}
    assert files(aside) == {k: v for k, v in files(trained_run).items() if k not in crops} | {"audit.json": b"{}"}
    assert crops <= files(run).keys()


def test_a_run_that_failed_before_its_first_checkpoint_can_be_started_with_corrected_options(
    toy_data: Manifest, tmp_path: Path
) -> None:
    unknown = replace(toy_data, images=tuple(replace(image, box=None) for image in toy_data.images))
    with pytest.raises(DataError, match="add the missing boxes or choose boxes=none"):
        train(tiny_config(total_kimg=0.008), unknown, tmp_path)
    assert status(tmp_path)["exit_code"] == 3
    train(tiny_config(total_kimg=0.008, boxes="none"), unknown, tmp_path)
    assert status(tmp_path)["exit_code"] == 0
    assert "background_real" not in rows(tmp_path)[0]  # nobody knows where the background is


def failing_saves(monkeypatch: pytest.MonkeyPatch, numbers: set[int]) -> None:
    calls, save = [0], TrainingState.save

    def full(self: TrainingState, *arguments: object) -> Path:
        calls[0] += 1
        if calls[0] in numbers:
            raise StorageError("cannot write checkpoint: No space left on device", "free space")
        return save(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingState, "save", full)


@pytest.mark.fault("checkpoints: full disks")
def test_a_full_disk_while_saving_is_a_warning_and_training_goes_on(
    trained_run: Path, toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_saves(monkeypatch, {1, 2, 4})  # of steps 2, 4, 6, 8, 10: never three in a row
    with pytest.warns(RuntimeWarning, match="checkpoint at step . not saved: cannot write checkpoint") as warned:
        train(tiny_config(checkpoint_kimg=0.016), toy_data, tmp_path)
    assert sum("not saved" in str(warning.message) for warning in warned) == 3
    assert checkpoints(tmp_path) == ["step-000000006", "step-000000010"]
    assert_same_run(tmp_path, trained_run)


@pytest.mark.filterwarnings("ignore:checkpoint at step")
@pytest.mark.parametrize(("numbers", "seen"), [({2, 3, 4}, 16), ({5}, 64)])
@pytest.mark.fault("checkpoints: full disks")
def test_the_third_failed_save_in_a_row_and_the_last_one_are_errors(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: set[int], seen: int
) -> None:
    failing_saves(monkeypatch, numbers)
    with pytest.raises(StorageError, match="No space left on device"):
        train(tiny_config(checkpoint_kimg=0.016), toy_data, tmp_path)
    assert status(tmp_path)["exit_code"] == 74
    assert status(tmp_path)["seen_images"] == seen  # what is safe


@pytest.mark.fault("resume: folders held by another process, or left by a killed one")
def test_a_folder_in_use_is_refused_and_left_alone(trained_run: Path, toy_data: Manifest, tmp_path: Path) -> None:
    run = copied(trained_run, tmp_path)
    with run_lock(run), pytest.raises(RunLockedError, match=f"is in use by process {os.getpid()}"):
        train(tiny_config(lr=2e-3), toy_data, run, overwrite=True)
    assert files(run) == files(trained_run)


def test_another_number_of_processes_than_asked_for_is_refused(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "the run must have 2 processes as asked, found 1; launch with torchrun --nproc_per_node 2"
    with pytest.raises(WorldSizeError, match=words):
        train(tiny_config(), toy_data, tmp_path / "run", expect_processes=2)
    monkeypatch.setenv("EXPECTED_WORLD_SIZE", "2")
    with pytest.raises(WorldSizeError, match=words) as error:
        train(tiny_config(), toy_data, tmp_path / "run")
    assert error.value.exit_code == 6
    assert not (tmp_path / "run").exists()


def test_a_batch_must_divide_among_the_processes() -> None:
    config = tiny_config().resolve(12)
    check_sizes(config, 4, 48)
    for processes in (3, 8):
        words = f"batch_size must be a multiple of the {processes} processes, 2 images or more each, got 8; change"
        with pytest.raises(ConfigError, match=words):
            check_sizes(config, processes, 48)


def test_a_process_must_hold_whole_groups_of_neighbours() -> None:
    config = tiny_config(batch_deviation=4).resolve(12)
    check_sizes(config, 2, 48)
    words = "the images of a process must be a multiple of batch_deviation = 4, got 2; change --batch_size or --batch"
    with pytest.raises(ConfigError, match=words):
        check_sizes(config, 4, 48)


def test_more_codes_than_images_can_fill_are_refused(toy_data: Manifest, tmp_path: Path) -> None:
    words = "every child code needs at least 2 training images, got 480 codes for 48 images; lower --modes_per_class"
    with pytest.raises(ConfigError, match=words):
        train(tiny_config(modes_per_class=40), toy_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_batch_size_changes_neither_the_images_nor_the_noise_and_codes(toy_data: Manifest, tmp_path: Path) -> None:
    small, large = (tiny_config(batch_size=size).resolve(12) for size in (8, 16))
    streams = [real_images(Accelerator(), config, toy_data, tmp_path) for config in (small, large)]
    parts = [streams[0].batch(range(first, first + 8)) for first in (40, 48)]  # across the end of the first epoch
    whole = streams[1].batch(range(40, 56))
    for name in whole._fields:
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    epoch = streams[1].indices(range(48, 96)).tolist()
    assert sorted(epoch) == list(range(48))
    assert epoch != streams[1].indices(range(48)).tolist()
    noise = [FineGAN(small).sample_codes(range(first, first + 8)) for first in (40, 48)]
    expected = FineGAN(large).sample_codes(range(40, 56))
    assert torch.equal(torch.cat([z for z, _ in noise]), expected[0])
    assert torch.equal(torch.cat([codes for _, codes in noise]), expected[1])


@pytest.mark.fault("resume: stopped or broken off, same bits")
def test_a_run_that_compares_images_of_one_code_with_photographs_goes_on_bit_for_bit(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off among the hard samples, which are no pairs."""
    config = tiny_config(spread_weight=2.0, hard_negative_kimg=0.032, checkpoint_kimg=0.056)
    whole = train(config, toy_data, tmp_path / "whole")
    spreads = [row["g_spread"] for row in rows(whole)]
    assert min(spreads) >= 0
    assert max(spreads) > 0

    def fall_over() -> None:
        raise RuntimeError("out of memory")

    at_row(monkeypatch, 9, fall_over)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, toy_data, tmp_path / "parts")
    monkeypatch.undo()
    assert_same_run(train(config, toy_data, tmp_path / "parts"), whole)


def test_the_official_data_path_reaches_training_and_its_evaluation(
    trained_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    run = train(tiny_config(official_crops=True, total_kimg=0.016), toy_data, tmp_path)
    assert rows(run)[0]["child_real"] != rows(trained_run)[0]["child_real"]
    cache = list((run / "crops").glob("crops-*"))
    shown = run_evaluation._photographs(run_evaluation._open(run), "train")
    expected = build_crops(toy_data, resolution=32, boxes="given", official=True)
    assert torch.equal(shown.images, expected.objects_center_uint8(torch.arange(48)))
    assert list((run / "crops").glob("crops-*")) == cache  # opened, not cut again
    assert len(cache) == 1


def test_half_precision_is_settled_and_leaves_what_this_process_trains_next_alone(
    toy_data: Manifest, tmp_path: Path
) -> None:
    for name, precision in (("exact", "fp32"), ("half", "bf16"), ("auto", "auto"), ("again", "fp32")):
        train(tiny_config(precision=precision, ndf=8, total_kimg=0.008), toy_data, tmp_path / name)
    (exact,), (half,) = rows(tmp_path / "exact"), rows(tmp_path / "half")
    assert half["child_class"] == pytest.approx(exact["child_class"], rel=0.02)
    assert half["child_class"] != exact["child_class"]
    tensors, _ = load_checkpoint(tmp_path / "half" / "checkpoints" / "step-000000001")
    assert {tensor.dtype for tensor in tensors["model"].values()} == {torch.float32, torch.int64}
    settled = json.loads((tmp_path / "auto" / "config.json").read_text())["config"]["precision"]
    assert settled in ("fp32", "bf16")
    assert rows(tmp_path / "again") == [exact]


@pytest.mark.parametrize(
    ("network", "cuda", "units", "expected"),
    [
        ("slim-32", True, True, "fp32"),  # its step waits for launches, of which bf16 has more
        ("slim-64", True, True, "fp32"),
        ("classic", True, True, "bf16"),
        ("classic", True, False, "fp32"),
        ("slim-32", False, True, "bf16"),
        ("slim-32", False, False, "fp32"),
    ],
)
def test_auto_is_half_precision_where_the_hardware_has_it_and_the_network_gains_by_it(
    monkeypatch: pytest.MonkeyPatch, network: str, cuda: bool, units: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(
        preparation, "has_bf16_units", lambda device: units and device.type == ("cuda" if cuda else "cpu")
    )
    config = FineGANConfig.preset(network)
    assert preparation.settled_precision(config).precision == expected
    assert preparation.settled_precision(replace(config, precision="fp32")).precision == "fp32"


def test_lines_hold_the_mean_since_the_last_line(trained_run: Path, toy_data: Manifest, tmp_path: Path) -> None:
    train(tiny_config(log_kimg=0.032), toy_data, tmp_path)
    single, found = rows(trained_run), rows(tmp_path)
    assert [row["step"] for row in found] == [4, 8, 10]
    for row, steps in zip(found, ((0, 4), (4, 8), (8, 10)), strict=True):
        mean = sum(line["g_child"] for line in single[slice(*steps)]) / (steps[1] - steps[0])
        assert row["g_child"] == pytest.approx(mean, rel=1e-6)


def test_a_multiple_of_an_interval_is_found_in_whole_images() -> None:
    # 0.07 * 1000 is 70.00000000000001
    assert [seen for seen in range(10, 160, 10) if training._crossed(seen, 10, 0.07)] == [70, 140]
    assert [seen for seen in range(32, 200, 32) if training._crossed(seen, 32, 0.05)] == [64, 128, 160]


def test_a_tracker_that_is_not_installed_is_refused(toy_data: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log_with must be an installed tracker .*, got 'tensorbord'; install it or"):
        train(tiny_config(), toy_data, tmp_path / "run", log_with="tensorbord")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_a_tracker_gets_what_metrics_jsonl_gets(toy_data: Manifest, tmp_path: Path) -> None:
    train(tiny_config(total_kimg=2 * BATCH / 1000), toy_data, tmp_path, log_with="tensorboard")
    assert len(rows(tmp_path)) == 2
    assert list(tmp_path.rglob("events.out.tfevents*"))
