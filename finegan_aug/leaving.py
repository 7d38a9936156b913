"""Ending at a request, wherever a job stands: SIGTERM and SIGUSR1 become SystemExit, so that everything is tidied.

Whatever is on disk is whole at every moment, so a job can be left between any two lines; the training loop alone waits
for the end of its step (`StopRequest`). No torch here: the command line reads this file before it knows what is asked.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STOPPED = 143
REQUESTS = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def leaving_on_request() -> Iterator[None]:
    """While it is entered, the first SIGTERM or SIGUSR1 raises SystemExit(143); later ones cannot disturb the tidying.

    Outside the main thread signals stay with the caller.
    """
    previous = {}

    def leave(number: int, frame: FrameType | None) -> None:
        for request in REQUESTS:
            signal.signal(request, signal.SIG_IGN)
        sys.exit(EXIT_STOPPED)

    try:
        for request in REQUESTS:
            previous[request] = signal.signal(request, leave)
    except ValueError:  # not in the main thread
        pass
    try:
        yield
    finally:
        for request, handler in previous.items():
            signal.signal(request, handler)
