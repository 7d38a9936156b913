"""The test photographs are opened once, after all weights are frozen; every opening in every process is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from faults import held

from finegan_aug.files import read_json

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = 10

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counted")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, str(ROOT / "tests" / "counted_opens.py"), str(folder)]
    done = subprocess.run(line, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def openings(folder: Path, step: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{step}.jsonl").read_text(encoding="utf-8").splitlines()]


def passes(found: list[dict[str, object]]) -> dict[str, int]:
    """How often each file was gone to; openings of one file in a row are one visit."""
    visits = [name for name, _ in groupby(str(entry["file"]) for entry in found)]
    return {name: visits.count(name) for name in visits}


def test_the_count_sees_the_openings_of_a_scan(counted: Path) -> None:
    found = openings(counted, "scan")
    assert len(passes(found)) == PHOTOGRAPHS
    assert not any(entry["frozen"] for entry in found)


@pytest.mark.fault
def test_an_ablation_goes_to_every_test_photograph_once_and_only_after_the_weights_are_frozen(counted: Path) -> None:
    found = openings(counted, "first")
    assert all(entry["frozen"] for entry in found)
    visits = passes(found)
    assert len(visits) == PHOTOGRAPHS
    held("leaks: test photographs opened in one pass, after the freeze", list(visits.values()).count(1), PHOTOGRAPHS)


@pytest.mark.parametrize("step", ["again", "report"])
def test_the_same_command_again_and_the_report_open_none(step: str, counted: Path) -> None:
    assert openings(counted, step) == []


def test_more_pairs_are_one_more_pass_which_is_counted(counted: Path) -> None:
    assert passes(openings(counted, "more")) == passes(openings(counted, "first"))
    assert read_json(counted / "out" / "opening.json")["count"] == 2
    assert read_json(counted / "out" / "rows.json")["test_openings"] == 2
