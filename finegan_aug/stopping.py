"""Ending a long job between two steps: signals and a vanished launcher only set a flag."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType

import torch
from accelerate import Accelerator


class StopRequest:
    """Catches SIGTERM, SIGUSR1 and Ctrl-C while it is entered; a second Ctrl-C leaves at once.

    Under a launcher a changed parent process counts as a request: `accelerate launch` dies of SIGTERM without a word
    to the training it started.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        launched = "TORCHELASTIC_RUN_ID" in os.environ or any(name.startswith("ACCELERATE_") for name in os.environ)
        self.parent = os.getppid() if launched else None
        self.previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            try:
                self.previous[number] = signal.signal(number, self._asked)
            except ValueError:  # not in the main thread: signals belong to the caller
                return self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.exit_code == 130:
            sys.exit(130)
        self.exit_code = 130 if number == signal.SIGINT else 143

    def agreed(self, accelerator: Accelerator) -> int:
        """130 or 143 as soon as any process was asked to stop, else 0; all processes get the same answer."""
        if self.parent is not None and os.getppid() != self.parent:
            self.exit_code = self.exit_code or 143
        if accelerator.num_processes == 1:
            return self.exit_code
        flag = torch.tensor([self.exit_code], device=accelerator.device)
        return int(accelerator.gather(flag).max())
