"""The counts behind `make faults`: each row of its table is one promise, held so many times of so many."""

from __future__ import annotations

import json
import os
from collections.abc import Generator

import pytest

FILE = "FINEGAN_AUG_FAULTS"  # names the JSON-lines file that collects the rows; unset: nothing is written


def held(row: str, held: int, of: int) -> None:
    """Note that a promise held `held` times of `of`, then fail unless it held every time."""
    note(row, held, of)
    assert held == of, f"{row}: held {held} of {of}"
    assert of > 0, f"{row}: nothing was tried"


def note(row: str, held: int, of: int) -> None:
    """Add a line to the file that collects the rows."""
    path = os.environ.get(FILE)
    if path:
        line = json.dumps({"row": row, "held": held, "of": of}, ensure_ascii=False)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Each case of a test with `@pytest.mark.fault("row")` is one trial of that row; without a row it counts by itself,
    and one that fails is a row of its own, for it may never have come to its count.
    """
    report = yield
    marks = list(item.iter_markers("fault"))
    row = next((mark.args[0] for mark in marks if mark.args), None)
    if marks and report.failed:
        note(row or item.nodeid, 0, 1)
    elif row is not None and report.when == "call" and report.passed:
        note(row, 1, 1)
    return report
