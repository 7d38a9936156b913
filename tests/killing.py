"""What test_kill.py starts: a command that is killed at random moments and typed again, until it comes to its end.

    killing.py SEED LONGEST_SEC finegan-aug VERB ...
    killing.py SEED LONGEST_SEC MODULE:FUNCTION WORD ...

Everything is imported once and each attempt is a fork, so that kills fall into the work and not into the imports. Each
falls anywhere in the first LONGEST_SEC of an attempt, the first in a third of that; 0 kills nothing. Prints how many
attempts were killed, and the seconds of the last one.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time

import torch


def main(seed: int, longest_sec: float, line: list[str]) -> int:
    torch.set_num_threads(1)
    for module in ("finegan_aug.training", "finegan_aug.synthesis", "finegan_aug.teacher", "recipes.ablation"):
        importlib.import_module(module)
    name = "finegan_aug.cli:main" if line[0] == "finegan-aug" else line[0]
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    draws, killed = random.Random(seed), 0
    while True:
        started, child = time.monotonic(), os.fork()
        if child == 0:
            os._exit(function(line[1:]) or 0)
        reach_sec = longest_sec if killed else longest_sec / 3  # the first attempt is not to get through
        deadline = started + (draws.uniform(0, reach_sec) if longest_sec else 600)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.002)
        if ended[0] != 0:
            print(killed, time.monotonic() - started, flush=True)
            return os.waitstatus_to_exitcode(ended[1])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        if killed == 200:
            return 99  # it comes no further


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
