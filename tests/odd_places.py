"""What test_odd_places.py starts: trainings where files may not be written, names are odd and the clock is wrong.

    odd_places.py FOLDER

FOLDER holds a copy of the drawn animals as `photographs`. Prints one JSON object: exit code and stderr of each run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from tiny_runs import command_line

from finegan_aug import update
from finegan_aug.cli import main as finegan_aug

EVERY_TWO_STEPS = ("--checkpoint_kimg", "0.016", "--grid_kimg", "0.016")


def may_write(folder: Path, allowed: bool) -> None:
    """Whether anything below may be written, as of a disk that is mounted anew."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o755 if path.is_dir() else 0o644) if allowed else (0o555 if path.is_dir() else 0o444))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    found: dict[str, tuple[int, str]] = {}

    def trained(name: str, case: str | None = None) -> None:
        words = command_line(folder / "photographs", folder / name, *EVERY_TWO_STEPS)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = finegan_aug(words)
        found[case or name] = code, said.getvalue()
        print(case or name, code, said.getvalue(), file=sys.stderr)

    may_write(folder / "photographs", False)
    trained("whole")
    may_write(folder / "photographs", True)

    (folder / "closed").mkdir(mode=0o555)
    trained("closed/run")

    # A disk that nothing can be written to, from the third step to the sixth or to the end.
    gradient_norm, calls = update.gradient_norm, [0]

    def closing(run: Path, first: int, last: int) -> None:
        def noting(optimizer: torch.optim.Optimizer) -> torch.Tensor:
            calls[0] += 1
            if calls[0] in (2 * first, 2 * last):
                may_write(run, calls[0] == 2 * last)
            return gradient_norm(optimizer)

        calls[0], update.gradient_norm = 0, noting

    closing(folder / "while", 3, 6)
    trained("while")
    closing(folder / "for good", 3, 99)
    trained("for good")
    may_write(folder / "for good", True)
    closing(folder / "for good", 98, 99)
    trained("for good", "for good, then open")

    # A clock that is set back by an hour at each look, on files that were written tomorrow.
    hours, clock = [0], time.time

    def late() -> float:
        hours[0] += 1
        return clock() - 3600 * hours[0]

    time.time = late
    closing(folder / "clock", 98, 99)
    (folder / "clock").mkdir()
    for path in (folder / "photographs").rglob("*"):
        os.utime(path, (clock() + 86400, clock() + 86400))
    trained("clock")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
