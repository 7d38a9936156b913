"""How processes start that name no method: by default fork on Linux up to Python 3.13, forkserver from 3.14 on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def started_by(method: str) -> Iterator[None]:
    """The way in which processes start that name none."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)
