"""Signals and a vanished launcher set a flag; the loop reads it between two steps."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from accelerate import Accelerator

from finegan_aug.stopping import StopRequest


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)], ids=lambda v: str(v)
)
def test_a_signal_becomes_an_exit_code_and_the_handlers_come_back(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.agreed(Accelerator()) == 0
        os.kill(os.getpid(), number)
        assert stop.agreed(Accelerator()) == code
        assert stop.agreed(Accelerator()) == code
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_leaves_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.SIGINT)
    assert left.value.code == 130
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("variable", ["TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"])
def test_a_launcher_that_has_vanished_stops_its_training(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "no")
    with StopRequest() as stop:
        assert stop.agreed(Accelerator()) == 0
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert stop.agreed(Accelerator()) == 143


def test_a_detached_run_without_a_launcher_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("TORCHELASTIC", "ACCELERATE_"))]:
        monkeypatch.delenv(name)
    with StopRequest() as stop:
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert stop.agreed(Accelerator()) == 0


def test_outside_the_main_thread_signals_stay_with_the_caller() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.agreed(Accelerator())))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, 0)]
    assert signal.getsignal(signal.SIGTERM) == before
