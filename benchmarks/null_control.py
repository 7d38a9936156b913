"""Does the comparison find nothing where there is nothing, and harm where there is harm?

    python -m benchmarks.null_control --out runs/null
    python -m benchmarks.null_control --out runs/null --sets-from runs/demo

The null: copies of real photographs are declared synthetic (arm N0) and compared with R2 on drawn animals, 10 % of the
labels, in repetitions with other seeds, each an experiment folder of its own. A repetition without any difference still
claims one in 5 % of cases, so 9 or 10 of 10 are inconclusive with a probability of 0.91. A copy counts as much in the
loss as a photograph, and its label as surely; `--synthetic-loss-weight 0.5 --synthetic-label-smoothing 0.25` gives it
what mixing gave synthetic images by default until those cost too much, and shows what that alone costs.

The poison, with `--sets-from`: the synthetic images of that experiment with shuffled labels (arm P0), in its own
setting and with its own classifier, must hurt. The same command again goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from classifier.config import ClassifierConfig
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.data.toy import NUM_TEST, NUM_TRAIN, write_toy
from finegan_aug.files import JSON, read_json, write_json
from finegan_aug.verdict import compare, mean_interval
from recipes.ablation import AblationOptions, run_ablation
from recipes.sets import inherited

PHOTO_PX = 64  # side of the drawn photographs


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, print a line for each repetition and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiments")
    parser.add_argument("--repetitions", type=int, default=10, help="of the null")
    parser.add_argument("--pairs", type=int, default=3, help="of each repetition")
    parser.add_argument("--poison-pairs", type=int, default=5, help="of the poison")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of each classifier of the null")
    parser.add_argument("--model", default="mobilenetv3_small_100", help="of the null")
    parser.add_argument("--resolution", type=int, default=64, help="of the null, pixels")
    parser.add_argument("--synthetic-loss-weight", type=float, default=1.0, help="of a copy; a photograph weighs 1")
    parser.add_argument("--synthetic-label-smoothing", type=float, default=0.1, help="of a copy; of a photograph 0.1")
    parser.add_argument("--train-images", type=int, default=NUM_TRAIN, help="drawn for the null")
    parser.add_argument("--test-images", type=int, default=NUM_TEST, help="drawn for the null")
    parser.add_argument("--jobs", type=int, default=1, help="classifiers trained at once")
    parser.add_argument("--sets-from", type=Path, help="experiment with synthetic sets, for the poison")
    options = parser.parse_args(argv)
    toy = write_toy(
        options.out / "drawn-animals",
        resolution=PHOTO_PX,
        num_train=options.train_images,
        num_test=options.test_images,
    )
    drawn = load_data(toy / "train", test_data=toy / "test")
    config = ClassifierConfig(
        model=options.model,
        resolution=options.resolution,
        steps=options.steps,
        lr=1e-2,
        augment="flip-crop",
        mix_prob=0.3,
        synthetic_loss_weight=options.synthetic_loss_weight,
        synthetic_label_smoothing=options.synthetic_label_smoothing,
        real_only_share=0.25,  # with which the published null was measured
    )
    null = AblationOptions(
        options.out, (0.1,), options.pairs, arms=("R2", "N0"), models=(options.model,), jobs=options.jobs
    )
    results = [
        verdict(replace(null, out=options.out / f"null-{seed}"), replace(config, seed=seed), drawn)
        for seed in range(options.repetitions)
    ]
    counts, over_all = Counter(result["verdict"] for result in results), [result["mean"] for result in results]
    mean, interval = sum(over_all) / len(over_all), mean_interval(over_all)
    print(
        f"null: {counts['inconclusive']} of {len(results)} repetitions inconclusive, mean {in_points(mean, interval)}"
    )
    if options.sets_from is not None:
        results.append(poison(options.sets_from, options.out / "poison", options.poison_pairs, options.jobs))
    null_mean: JSON = {"repetitions": options.repetitions, "mean": mean, "interval": interval}
    write_json(
        options.out / "null_control.json", {"null": null_mean, "classifier": config.to_json(), "results": results}
    )


def poison(sets_from: Path, out: Path, pairs: int, jobs: int) -> JSON:
    """P0 against R2 at the smallest data fraction of an experiment, with its classifier."""
    there = read_json(sets_from / "ablation.json")
    asked, config = there["options"], ClassifierConfig(**there["classifier"])
    options = AblationOptions(
        out,
        (min(asked["fractions"]),),
        pairs,
        arms=("R2", "P0"),
        models=tuple(asked["models"][:1]),
        sets_from=sets_from,
        jobs=jobs,
        **inherited(sets_from),
    )
    return verdict(options, config, read_manifest(sets_from / "manifest.jsonl"))


def verdict(options: AblationOptions, config: ClassifierConfig, manifest: Manifest) -> JSON:
    """What an experiment of one setting says of its arm against R2."""
    rows = read_json(run_ablation(options, config, manifest))["rows"]
    control, arm = ([row["accuracy"] for row in rows if row["arm"] == name] for name in options.arms)
    found = compare(control=control, arm=arm)
    said = in_points(found.mean, found.interval)
    print(f"{options.out.name}: {options.arms[1]} - R2 {said}, {found.verdict}", flush=True)
    measured: JSON = {"differences": found.differences, "mean": found.mean, "interval": found.interval}
    return {"name": options.out.name, "arm": options.arms[1], **measured, "verdict": found.verdict}


def in_points(mean: float, interval: tuple[float, float] | None) -> str:
    """A difference of accuracies in words: `+1.5 points (-0.5 to 3.5)`."""
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * mean:+.1f} points{ends}"


if __name__ == "__main__":
    main()
