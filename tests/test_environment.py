"""The settings of the process: made before torch, in favour of what the user has set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from finegan_aug.environment import prepare_environment
prepare_environment()
assert "torch" not in sys.modules
import torch
torch.ones(4 << 20)  # once it is freed, the library keeps what smaller ones leave, by its own rules
before = int(open("/proc/self/statm").read().split()[1])
maps = [torch.ones(2 << 20) for _ in range(8)]  # 8 MiB each
del maps[::2]  # holes of 32 MiB
kept = (int(open("/proc/self/statm").read().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE") / 2**20
print(os.environ["THP_MEM_ALLOC_ENABLE"], kept)
"""


def run(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc and of the kernel's huge pages")
def test_freed_tensors_go_back_to_the_system_and_huge_pages_are_asked_for() -> None:
    asked, kept_mib = run(FINEGAN_AUG_MALLOC="1")
    assert asked == "1"
    assert float(kept_mib) < 40 < 56 < float(run(FINEGAN_AUG_MALLOC="0")[1])


def test_what_the_user_has_set_stays() -> None:
    assert run(THP_MEM_ALLOC_ENABLE="0")[0] == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
def test_the_switch_leaves_the_library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from finegan_aug import environment

    asked: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, name: int, value: int) -> None:
            asked.append((name, value))

    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setattr(environment.ctypes, "CDLL", lambda name: Library())
    monkeypatch.setenv("FINEGAN_AUG_MALLOC", "0")
    environment.prepare_environment()
    assert asked == []
    monkeypatch.setenv("FINEGAN_AUG_MALLOC", "1")
    environment.prepare_environment()
    assert asked == [(-3, 4 << 20)]
