"""The counts behind `make faults` themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import FILE, held

from benchmarks.faults import counts, main


def test_a_count_is_appended_as_one_line_whether_it_held_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE, str(tmp_path / "faults.jsonl"))
    held("kill -9", 20, 20)
    with pytest.raises(AssertionError, match=r"^kill -9: held 19 of 20"):
        held("kill -9", 19, 20)
    lines = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert lines == [{"row": "kill -9", "held": 20, "of": 20}, {"row": "kill -9", "held": 19, "of": 20}]


def test_a_promise_that_was_never_tried_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE, raising=False)
    with pytest.raises(AssertionError, match=r"^kill -9: nothing was tried"):
        held("kill -9", 0, 0)


def test_the_table_adds_up_a_promise_over_its_tests_and_marks_what_did_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faults.jsonl"
    path.write_text('{"row": "kill -9", "held": 19, "of": 20}\n' + '{"row": "files", "held": 5, "of": 5}\n' * 2)
    assert main(path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "files    held 10 of 10",
        "kill -9  held 19 of 20  <- did not hold",
        "1 of 2 promises held",
    ]


@pytest.mark.parametrize(("lines", "code"), [(None, 1), ("", 1), ('{"row": "files", "held": 5, "of": 5}', 0)])
def test_a_table_without_a_row_is_a_failure(lines: str | None, code: int, tmp_path: Path) -> None:
    if lines is not None:
        (tmp_path / "faults.jsonl").write_text(lines)
    assert main(tmp_path / "faults.jsonl") == code


CASES = """
import pytest
from faults import held
fault = pytest.mark.fault

@fault("row")
@pytest.mark.parametrize("case", range(3))
def test_row(case):
    assert case != 1

@fault
def test_counts_by_itself():
    held("own", 5, 5)

@fault
def test_fails_before_it_counts():
    raise ValueError

@fault("skipped")
def test_skipped():
    pytest.skip("not here")

@fault("set up")
def test_without_what_it_needs(missing):
    pass

def test_no_promise():
    assert False
"""


def test_each_case_of_a_marked_test_is_a_trial_and_no_failure_is_missing_from_the_table(tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-m", "pytest", "-q", "-p", "faults", "-p", "no:cacheprovider", "test_cases.py"]
    env = {**os.environ, "PYTHONPATH": path, FILE: str(tmp_path / "faults.jsonl")}
    subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert counts((tmp_path / "faults.jsonl").read_text()) == {
        "row": (2, 3),
        "own": (5, 5),
        "test_cases.py::test_fails_before_it_counts": (0, 1),
        "set up": (0, 1),
    }
