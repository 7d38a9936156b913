"""Do the demo's codes change what they are meant to change? Counted on pairs of images that differ in one code.

    python -m benchmarks.disentanglement --run runs/demo-long/gan/0.1-0

On the drawn set a class is one body plan (shape) with one coat (appearance). The judge is a small CNN that learned the
classes from 8,000 drawn animals that no generator has seen, as in benchmarks/demo_quality.py. Prints the table, writes
JSON: what changes with the child, the parent and the background code (`finegan_aug.disentanglement.measure_pairs` names
the measures), with 95 % intervals, and the judge's own accuracy on other drawings.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.demo_quality import drawn_crops, fit_class_judge
from finegan_aug.codes import child_to_class
from finegan_aug.config import FineGANConfig
from finegan_aug.data.toy import TOY_CLASSES, TOY_PARENTS, toy_child_to_parent
from finegan_aug.disentanglement import CODES, Meaning, draw_pairs, measure_pairs, summary
from finegan_aug.errors import ConfigError
from finegan_aug.figures import draw
from finegan_aug.files import JSON, read_json, write_json
from finegan_aug.trained import open_run

# What is to be reached at least, as (changed code, measure, at least or at most, value).
GOALS = (
    ("child", "child_mask_iou", ">=", 0.9),
    ("child", "class_as_intended", ">=", 0.9),
    ("parent", "shape_as_intended", ">=", 0.9),
    ("parent", "difference_outside", "<=", 0.03),
)


def main() -> None:
    """Train the judge, draw the pairs, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a generator trained on the drawn set")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs for each code")
    parser.add_argument("--drawings", type=int, default=8000, help="drawn animals that the judge learns from")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs")
    options = parser.parse_args()
    run = open_run(options.run)
    config, generator = run.config, run.generator
    meaning = meaning_of_codes(config, read_json(options.run / "config.json")["classes"])
    with tempfile.TemporaryDirectory() as folder:
        train, test = drawn_crops(Path(folder), config, options.drawings)
    judge = fit_class_judge(train)
    named = judge.logits(test.objects_center_uint8(torch.arange(len(test)))).argmax(dim=1)

    rows: list[JSON] = []
    for changed in CODES:
        pairs = draw_pairs(changed, options.pairs, meaning, z_dim=config.z_dim, seed=options.seed)
        rows += summary(changed, measure_pairs(partial(draw, generator), pairs, judge.logits, meaning))
    result = {
        "run": options.run.name,
        "checkpoint_sha256": run.checkpoint_sha256,
        "seed": options.seed,
        "judge_accuracy_on_drawings": float((named == test.labels).float().mean()),
        "rows": rows,
        "goals": [against_goal(rows, *goal) for goal in GOALS],
    }
    print_table(result)
    write_json(options.run / "disentanglement.json", result)


def meaning_of_codes(config: FineGANConfig, classes: list[str]) -> Meaning:
    """Codes of a generator trained on the drawn set with tied codes.

    Raises:
        ConfigError: codes were discovered, or the classes are not those of the drawn set.
    """
    if config.labels != "tied" or tuple(classes) != TOY_CLASSES:
        raise ConfigError(
            f"the run must have tied codes and the classes of the drawn set, found labels {config.labels} and "
            f"{len(classes)} classes",
            "train on `finegan-aug toy` with --labels tied",
        )
    coats = len(TOY_CLASSES) // len(TOY_PARENTS)
    return Meaning(
        child_to_parent=torch.tensor(config.child_to_parent),
        child_to_class=child_to_class(len(TOY_CLASSES), config.modes_per_class),
        class_to_shape=torch.from_numpy(toy_child_to_parent()),
        class_to_appearance=torch.arange(len(TOY_CLASSES)) % coats,
    )


def against_goal(rows: list[JSON], changed: str, measure: str, sign: str, goal: float) -> JSON:
    """The row of one measure beside its goal."""
    (row,) = (row for row in rows if (row["changed"], row["measure"]) == (changed, measure))
    reached = row["mean"] is not None and (row["mean"] >= goal if sign == ">=" else row["mean"] <= goal)
    return {"changed": changed, "measure": measure, "mean": row["mean"], "goal": f"{sign} {goal:g}", "reached": reached}


def print_table(result: JSON) -> None:
    """A line for each measure, a column for each changed code."""
    print(f"judge: {result['judge_accuracy_on_drawings']:.4f} of other drawings right")
    print(f"{'changed':<24}" + "".join(f"{code:>26}" for code in CODES))
    for measure in dict.fromkeys(row["measure"] for row in result["rows"]):
        cells = [row for row in result["rows"] if row["measure"] == measure]
        print(f"{measure:<24}" + "".join(f"{_cell(row):>26}" for row in cells))
    for goal in result["goals"]:
        print(f"{goal['changed']}: {goal['measure']} {goal['goal']}: {'reached' if goal['reached'] else 'missed'}")


def _cell(row: JSON) -> str:
    if row["mean"] is None:
        return "no pair"
    low, high = row["interval"]
    return f"{row['mean']:.4f} ({low:.4f} to {high:.4f})"


if __name__ == "__main__":
    main()
