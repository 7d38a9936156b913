"""Disks that cannot be written, few file handles, a plain locale, odd names and a wrong clock end no training."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import held
from tiny_runs import assert_same_run, files, status

from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint

TESTS = Path(__file__).resolve().parent
NAME = "Gräser & Bäume, 草"
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform != "linux", reason="permissions are taken from root as Linux does"),
]


def bound_by_permissions() -> None:
    """Of root too: without these two rights the mode of a file holds for it."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_training_where_things_are_not_as_usual(toy_folder: Path, tmp_path: Path) -> None:
    """256 file handles, LC_ALL=C, spaces and letters of other alphabets everywhere, photographs that are read only."""
    folder = tmp_path / NAME
    shutil.copytree(toy_folder, folder / "photographs")
    for part in ("train", "test"):
        (folder / "photographs" / part / "bird_hooded").rename(folder / "photographs" / part / NAME)
        boxes = folder / "photographs" / f"{part}_boxes.csv"
        boxes.write_text(re.sub(r"bird_hooded/([^,]*)", rf'"{NAME}/\1"', boxes.read_text()), "utf-8")
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, str(TESTS / "odd_places.py"), str(folder)], env={**plain, "LC_ALL": "C", "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300, check=False, preexec_fn=bound_by_permissions,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1, ensure_ascii=False))
    codes = {name: code for name, (code, _) in found.items()}
    expected = {"whole": 0, "closed/run": 74, "while": 0, "for good": 74, "for good, then open": 0, "clock": 0}
    held("long runs: trainings in odd places", sum(codes[name] == expected[name] for name in expected), 6)

    said = {name: text for name, (_, text) in found.items()}
    assert said["closed/run"].splitlines() == [
        f"error: cannot lock {folder}/closed/run: Permission denied",
        "fix: choose an --out that can be written",
    ]
    assert said["while"].count("checkpoint at step 4 not saved: cannot write") == 1
    assert said["for good"].splitlines()[-2:] == [
        f"error: cannot write {folder}/for good/metrics.jsonl: Permission denied",
        "fix: free space or allow writing, then run again",
    ]
    for name in ("while", "for good", "clock"):
        assert_same_run(folder / name, folder / "whole")
        assert status(folder / name)["state"] == "done"
        assert not list((folder / name).rglob(".*.tmp"))
    first = latest_checkpoint(folder / "whole")
    assert first is not None
    assert load_checkpoint(first)[1]["step"] == 10
    assert NAME in json.loads(files(folder / "whole")["config.json"])["classes"]
