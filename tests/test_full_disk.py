"""A disk that fills while a run trains and has space again: nothing ends, nothing is half there, nothing is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import assert_same_run, command_line, files, rows, status

from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint

# A limit of the operating system on file size stands for the full disk: from the third step to the sixth nothing but
# the smallest files can be written. It is set where each step measures its gradients.
SCRIPT = """
import resource, signal, sys, torch
torch.set_num_threads(1)
from finegan_aug import update
from finegan_aug.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
full, space = (int(word) for word in sys.argv[1:3])
calls, gradient_norm = [0], update.gradient_norm
def limiting(optimizer):
    calls[0] += 1
    step = (calls[0] + 1) // 2
    limit = 500 if full <= step < space else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    return gradient_norm(optimizer)
update.gradient_norm = limiting
sys.exit(main(sys.argv[3:]))
"""
EVERY_TWO_STEPS = ("--checkpoint_kimg", "0.016", "--grid_kimg", "0.016")


def trained(run: Path, toy_folder: Path, full: int, space: int) -> subprocess.CompletedProcess[str]:
    line = command_line(toy_folder, run, *EVERY_TWO_STEPS)
    script = [sys.executable, "-c", SCRIPT, str(full), str(space), *line]
    return subprocess.run(script, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.fault("checkpoints: full disks")
def test_a_run_whose_disk_is_full_for_a_while_ends_as_if_it_had_not_been(toy_folder: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert trained(whole, toy_folder, 99, 99).returncode == 0
    done = trained(run, toy_folder, 3, 6)  # the save of step 4 fails, that of step 6 does not
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("metrics.jsonl: File too large; its lines wait in memory") == 1
    assert done.stderr.count("checkpoint at step 4 not saved: cannot write") == 1
    assert done.stderr.count("images not drawn: cannot write") == 1
    assert_same_run(run, whole)
    assert [row["step"] for row in rows(run)] == list(range(1, 11))
    missing = {"fakes_000032.png", "codes_000032.png", "stages_000032.png"}
    assert files(whole).keys() - files(run).keys() <= missing
    hidden = [p for p in run.rglob(".*") if p.is_file() and p.suffix != ".lock" and p.name != ".lock"]
    assert hidden == []


@pytest.mark.slow
@pytest.mark.fault("checkpoints: full disks")
def test_a_disk_that_stays_full_ends_the_run_with_74_and_its_last_good_checkpoint(
    toy_folder: Path, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    done = trained(run, toy_folder, 3, 99)
    assert done.returncode == 74, done.stderr
    assert "File too large" in done.stderr
    last = latest_checkpoint(run)
    assert last is not None
    assert load_checkpoint(last)[1]["step"] == 2
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000000002"]
    assert status(run)["seen_images"] == 16
    assert trained(run, toy_folder, 99, 99).returncode == 0
    assert trained(whole, toy_folder, 99, 99).returncode == 0
    assert_same_run(run, whole)
