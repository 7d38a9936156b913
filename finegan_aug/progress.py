"""How far a long job is: a bar on a terminal, a plain line now and then elsewhere, the time left in both."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm.auto import tqdm


class Progress:
    """Progress over a known total, in the caller's unit.

    Args:
        total: amount at the end.
        initial: amount done before.
        label: what is counted, such as "kimg".
        enabled: False on all processes but the first.
        every_sec: time between plain lines.
    """

    def __init__(
        self, total: float, *, initial: float = 0.0, label: str, enabled: bool = True, every_sec: float = 30.0
    ) -> None:
        self.total, self.done, self.label, self.every_sec = total, initial, label, every_sec
        self.enabled = enabled
        self.initial, self.started_sec = initial, time.monotonic()
        self.last_sec = self.started_sec
        on_terminal = enabled and sys.stderr.isatty()
        form = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} {unit} [{elapsed}<{remaining}{postfix}]"
        self.bar = tqdm(total=total, initial=initial, unit=label, bar_format=form) if on_terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.enabled and kind is None:
            print(self.line(), file=sys.stderr, flush=True)

    def advance_to(self, done: float, note: str = "") -> None:
        """Show that `done` of the total is reached; cheap enough for every step."""
        if not self.enabled:
            return
        self.done = done = min(done, self.total)  # the last batch may reach beyond the end
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.last_sec >= self.every_sec:
            self.last_sec = time.monotonic()
            print(self.line(note), file=sys.stderr, flush=True)

    def line(self, note: str = "") -> str:
        """`12.3/50.0 kimg (25 %), 3 min 10 s left`, with a note behind it."""
        spent = time.monotonic() - self.started_sec
        gained = self.done - self.initial
        left = spent * (self.total - self.done) / gained if gained > 0 else float("nan")
        ahead = "" if left != left else f", {int(left) // 60} min {int(left) % 60} s left"
        share = 100 * self.done / self.total if self.total else 100
        return f"{self.done:.1f}/{self.total:.1f} {self.label} ({share:.0f} %){ahead}{', ' + note if note else ''}"
