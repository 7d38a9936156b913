"""The counts behind `make faults` themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults import FILE, held


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
