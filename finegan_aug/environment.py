"""A setting that torch reads before its first large tensor, made by whatever starts it here."""

from __future__ import annotations

import os


def prepare_environment() -> None:
    """Ask for huge pages behind large tensors; THP_MEM_ALLOC_ENABLE=0 in the environment keeps small ones.

    On CPUs torch takes its memory from the system anew for every large tensor, page by page (docs/performance.md).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
