"""One process at a time in every folder that is written, and nothing half written left in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import files, status

from finegan_aug.cli import main
from finegan_aug.data.manifest import Manifest
from finegan_aug.run_folder import run_lock
from finegan_aug.synthesis import synthesize

HOLDER = """
import sys, time
from pathlib import Path
from finegan_aug.run_folder import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def a_set(trained_run: Path, tmp_path: Path) -> Path:
    return synthesize(trained_run, tmp_path / "set", 1)


@pytest.mark.fault("resume: folders held by another process, or left by a killed one")
def test_a_set_that_another_process_writes_is_refused_at_once(
    trained_run: Path, toy_folder: Path, a_set: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(a_set)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    before = files(a_set)
    lines = [
        ["synthesize", str(trained_run), "--out", str(a_set), "--per_class", "2"],
        ["filter", str(a_set), "--data", str(toy_folder / "train"), "--teacher_kimg", "0.1"],
    ]
    try:
        for line in lines:
            started = time.monotonic()
            assert main(line) == 75
            assert time.monotonic() - started < 5
            said = capfd.readouterr().err
            assert f"error: {a_set} is in use by process {holder.pid} on " in said
            assert "fix: wait for it, stop it, or choose another --out" in said
        assert files(a_set) == before
    finally:
        holder.kill()
        holder.wait()
    with pytest.warns(UserWarning, match=f"process {holder.pid} was killed; going on"), run_lock(a_set):
        pass


@pytest.mark.fault("resume: folders held by another process, or left by a killed one")
def test_what_a_killed_process_left_half_written_is_removed_by_the_next(trained_run: Path, a_set: Path) -> None:
    a_class = next(path for path in a_set.iterdir() if path.is_dir())
    halves = [
        a_set / f".manifest.jsonl.{os.getpid()}.tmp",
        a_class / ".x.png.1.tmp",
    ]
    for half in halves:
        half.write_bytes(b"half")
    synthesize(trained_run, a_set, 1)
    assert not any(half.exists() for half in halves)


@pytest.mark.fault("resume: folders held by another process, or left by a killed one")
def test_the_status_of_a_killed_run_is_not_running(
    trained_run: Path, tmp_path: Path, toy_data: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    assert main(["verify", str(run), "--status"]) == 0
    told = (run / "status.json").read_text()
    (run / "status.json").write_text(told.replace('"done"', '"running"').replace('"exit_code": 0', '"exit_code": null'))
    assert status(run)["exit_code"] is None
    capsys.readouterr()
    assert main(["verify", str(run), "--status"]) == 137
    assert capsys.readouterr().out == "killed after 80 images run the same command to go on\n"
    with run_lock(run):
        assert main(["verify", str(run), "--status"]) == 0
    assert capsys.readouterr().out == "running after 80 images\n"
