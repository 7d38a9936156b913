"""A sample that does something bad to the loader worker that loads it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coloured_images import ColouredImages
from torch.utils.data import get_worker_info


def throw() -> None:
    raise KeyError("no such\nkey")


FAULTS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "os._exit": lambda: os._exit(9),
    "os._exit(0)": lambda: os._exit(0),  # what torch takes for a good end
    "exception": throw,
    "hang": lambda: time.sleep(1000),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),  # hangs with all threads: not even its queue can be read
}


def misbehave(fault: str, marker: Path, times: int = 10**6) -> None:
    """Do it to the worker that asks, so many times in all; the marker counts them."""
    before = marker.stat().st_size if marker.exists() else 0
    if get_worker_info() is not None and before < times:
        with marker.open("ab") as stream:
            stream.write(b".")
        FAULTS[fault]()


class FaultyImages(ColouredImages):
    """Coloured images of which number 5 does it, the first so many times."""

    def __init__(self, fault: str, marker: Path, times: int = 10**6) -> None:
        super().__init__(12)
        self.arguments = fault, marker, times

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            misbehave(*self.arguments)
        return super().__getitem__(index)
