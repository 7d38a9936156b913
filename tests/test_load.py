"""A folder of 100,000 small images: time and memory of each step stay within what docs/reliability.md states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import held
from many_images import BARE

TESTS = Path(__file__).resolve().parent
FULL = bool(os.environ.get("FINEGAN_AUG_FAULTS"))
COUNT = 100_000 if FULL else 2_000
# Seconds of each step, as multiples of what a bare loop with Pillow takes to decode as many images of 24 px.
SLOWEST = {"scan": 8, "write": 1, "read": 3, "budget": 2, "train": 6, "resume": 2}
STEADY_MIB, IMAGE_KIB = 96, 4  # growth of memory: as much whatever the folder, and so much for each image
CROPS_KIB = 2 * 3 * 38 * 38 / 1024  # of an image in the crop cache at 32 px, mapped into memory while it is written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc, of Linux"),
]


def test_a_folder_of_many_images_is_scanned_split_trained_on_and_resumed_within_its_limits(tmp_path: Path) -> None:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(TESTS / "many_images.py"), str(tmp_path), str(COUNT)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    steps = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(steps, indent=1))

    # Each image is decoded once by the scan and once for its crops, and by nothing else.
    trained = COUNT - COUNT // 5
    expected = {"bare": BARE, "scan": COUNT, "write": 0, "read": 0, "budget": 0, "train": trained, "resume": 0}
    expected["bare again"] = BARE
    assert {name: step["opened"] for name, step in steps.items()} == expected

    limits_mib = dict.fromkeys(SLOWEST, STEADY_MIB + COUNT * IMAGE_KIB / 1024)
    for name in ("train", "resume"):
        limits_mib[name] += trained * CROPS_KIB / 1024
    assert [name for name, limit in limits_mib.items() if steps[name]["mib"] > limit] == []
    bare_sec = max(steps[name]["sec"] for name in ("bare", "bare again")) / BARE * COUNT
    within = [name for name, times in SLOWEST.items() if steps[name]["sec"] <= times * bare_sec or not FULL]
    held("long runs: steps with many images within time and memory", len(within), len(SLOWEST))
