"""Progress as plain lines in a log and as a bar on a terminal."""

from __future__ import annotations

import sys
import time

import pytest

from finegan_aug.progress import Progress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_says_how_much_is_done_and_how_long_the_rest_takes(clock: Clock) -> None:
    progress = Progress(50.0, initial=10.0, label="kimg")
    assert progress.line() == "10.0/50.0 kimg (20 %)"  # nothing known of the speed
    clock.now += 100.0
    progress.advance_to(20.0)  # 10 in 100 s, so 30 in 300 s
    assert progress.line() == "20.0/50.0 kimg (40 %), 5 min 0 s left"
    assert progress.line("saving") == "20.0/50.0 kimg (40 %), 5 min 0 s left, saving"


def test_lines_come_now_and_then_and_once_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4.0, label="kimg", every_sec=30.0) as progress:
        for done in range(1, 5):
            clock.now += 20.0
            progress.advance_to(float(done))
    assert capsys.readouterr().err.splitlines() == [
        "2.0/4.0 kimg (50 %), 0 min 40 s left",
        "4.0/4.0 kimg (100 %), 0 min 0 s left",
        "4.0/4.0 kimg (100 %), 0 min 0 s left",
    ]


def test_a_last_batch_beyond_the_end_counts_as_the_end(clock: Clock) -> None:
    progress = Progress(0.1, label="kimg")
    clock.now += 1.0
    progress.advance_to(0.128)
    assert progress.line() == "0.1/0.1 kimg (100 %), 0 min 0 s left"


def test_other_processes_and_failed_jobs_say_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4.0, label="kimg", enabled=False, every_sec=0.0) as progress:
        progress.advance_to(4.0)
    with pytest.raises(RuntimeError), Progress(4.0, label="kimg"):
        raise RuntimeError
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(0.1, initial=0.05, label="kimg") as progress:
        progress.advance_to(0.128, "saving")
    said = capsys.readouterr().err
    assert " 50%|" in said
    assert "100%|" in said
    assert "0.1/0.1 kimg" in said
