"""The whole path on the embedded data set: draw animals, train a generator, mix, classify, report.

    make demo                                                       minutes on two cores, no network
    .venv/bin/python recipes/demo.py --settings demo-long --out runs/demo-long     the same with an hour of training

Ten per cent of the labels (the generator may see the other training images without theirs), arms R1, R2, R5, S1 and
S3 of the ablation, three pairs. The same command again goes on where it stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finegan_aug.data.toy import write_toy
from finegan_aug.files import read_json, write_json
from finegan_aug.options import build, parse_options
from finegan_aug.report import write_report
from recipes import ablation
from recipes.common import run_recipe

PHOTO_PX = 64  # side of the drawn photographs; the generator learns from crops of them


@dataclass(frozen=True)
class DemoOptions:
    """Where and how long."""

    out: Path = Path("runs/demo")  # experiment folder; if it holds the same demo, that goes on
    settings: str = "demo"  # configuration by name or path: demo or demo-long


def main(argv: Sequence[str]) -> None:
    """Run every step; each leaves a folder or file that the next one reads."""
    from finegan_aug.run_evaluation import evaluate_run

    started_sec = time.monotonic()
    (written,) = parse_options("demo.py", argv, DemoOptions, section="demo")
    options = build(DemoOptions, written)
    out, toy = options.out, options.out / "drawn-animals"
    say(f"1/4 drawing animals in {toy}")
    write_toy(toy, resolution=PHOTO_PX)
    say("2/4 training the generator, its images, and the classifiers of every arm")
    photographs = {
        "--data": toy / "train",
        "--test-data": toy / "test",
        "--box-file": toy / "train_boxes.csv",
        "--test-box-file": toy / "test_boxes.csv",
    }
    named = [str(word) for option in photographs.items() for word in option]
    ablation.main(["--config", options.settings, "--out", str(out), *named])
    say("3/4 measuring the generator")
    for run_dir in sorted((out / "gan").iterdir()):
        if not (run_dir / "evaluation.json").exists():
            evaluate_run(run_dir, synthetic_dir=out / "synthetic" / run_dir.name / "filtered")
    say("4/4 writing the report")
    facts = read_json(out / "experiment.json")
    facts["title"] = "Do synthetic animals help with a tenth of the labels?"
    facts["command"] = ["make demo" if options.settings == "demo" else f"recipes/demo.py --settings {options.settings}"]
    hours = facts.get("wall_clock_hours") or (time.monotonic() - started_sec) / 3600
    write_json(out / "experiment.json", {**facts, "wall_clock_hours": round(hours, 3)})
    print(f"\nThe report: {write_report(out)}")


def say(line: str) -> None:
    """One line of progress."""
    print(f"\n== {line}", flush=True)


if __name__ == "__main__":
    sys.exit(run_recipe(main))
