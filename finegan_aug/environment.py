"""How the process gets its memory: settings that win time or memory on CPUs, made before torch is imported.

A variable that is set already is left alone; FINEGAN_AUG_MALLOC=0 leaves the C library's settings alone.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_LARGE_BYTES = 4 << 20


def prepare_environment() -> None:
    """Ask for huge pages behind large tensors, and for freed ones to go back to the system at once (glibc).

    torch takes its memory anew for every tensor. Small pages make that dear (docs/performance.md), and freed maps of
    many sizes otherwise stay with the process as holes.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux" and os.environ.get("FINEGAN_AUG_MALLOC", "1") != "0":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
