"""What test_opened_once.py starts: a scan, an ablation, the same again, its report, and one with more pairs.

    counted_opens.py FOLDER

In each step every opening of a test photograph is written to FOLDER/STEP.jsonl, in order, by whichever process did it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

LOG = "COUNTED_OPENS"  # the file of the present step; handed on to workers


def note(event: str, arguments: tuple[Any, ...]) -> None:
    log = os.environ.get(LOG)
    if event != "open" or log is None or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = Path(os.fsdecode(arguments[0]))
    if path.suffix == ".png" and "test" in path.parts:
        frozen = (Path(log).parent / "out" / "frozen.json").exists()
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"file": path.name, "frozen": frozen}) + "\n")


sys.addaudithook(note)  # here, so that workers that import this file anew have it too


def main(folder: Path) -> None:
    from tiny_ablation import CONFIG, fake_sets, options, photographs

    from finegan_aug.data.folder import scan
    from finegan_aug.report import write_report
    from recipes.ablation import run_ablation

    train, test = photographs(folder / "train", 40, 0), photographs(folder / "test", 10, 1)

    def step(name: str) -> None:
        os.environ[LOG] = str(folder / f"{name}.jsonl")
        Path(os.environ[LOG]).touch()

    step("scan")
    manifest = scan(train, test_data=test)
    wanted = {"arms": ("R1", "R2", "S3"), "alpha_grid": (0.0, 0.5), "jobs": 2}
    step("first")
    run_ablation(options(folder / "out", pairs=1, **wanted), CONFIG, manifest, fake_sets)
    step("again")
    run_ablation(options(folder / "out", pairs=1, **wanted), CONFIG, manifest, fake_sets)
    step("report")
    write_report(folder / "out")
    step("more")
    run_ablation(options(folder / "out", pairs=2, **wanted), CONFIG, manifest, fake_sets)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
