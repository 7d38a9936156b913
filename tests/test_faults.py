"""The counts behind `make faults` themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults import FILE, held

from benchmarks.faults import main


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
