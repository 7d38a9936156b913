"""Train a timm classifier on a folder of photographs, with synthetic images mixed in if a folder of them is named.

    accelerate launch recipes/train_classifier.py --data DIR --out runs/real
    accelerate launch recipes/train_classifier.py --data DIR --synthetic synthetic/flowers --alpha 0.4 --out runs/mix

The result on the validation share of the budget ends the run; test images are not looked at unless --test-once says
so. The same command again leaves a finished run as it is; other data need another folder. `--help` lists every option.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finegan_aug.files import JSON, read_json
from finegan_aug.options import build, parse_options
from finegan_aug.output_folder import ensure_apart
from finegan_aug.typed import read_field
from finegan_aug.verbs import DataOptions, load
from recipes.common import run_recipe


@dataclass(frozen=True)
class RunOptions:
    """What to train on."""

    out: Path  # run folder
    synthetic: Path | None = None  # folder of synthetic images
    alpha: float = 0.2  # share of the real images replaced by synthetic ones of their class
    soft_labels: bool = False  # synthetic images have the probabilities of their teacher for labels
    fraction: float = 1.0  # share of the training images whose labels may be used
    pair: int = 0  # number of the draw of that share
    test_once: bool = False  # evaluate on the test images at the end and keep every prediction


def main(argv: Sequence[str]) -> None:
    """Parse the options, train, print the accuracy."""
    from classifier.config import ClassifierConfig

    run, data, written = parse_options(
        "train_classifier.py", argv, RunOptions, DataOptions, ClassifierConfig, section="classifier"
    )
    options, config = build(RunOptions, run), build(ClassifierConfig, written)

    from classifier.data import SquareImages
    from classifier.evaluation import evaluate_classifier
    from classifier.models import check_model_name
    from classifier.training import train_classifier
    from finegan_aug.data.folder import budget
    from finegan_aug.lineage import refuse_copies
    from finegan_aug.mixing import SyntheticMixDataset

    check_model_name(config.model)
    manifest = budget(load(data), options.fraction, pair=options.pair, unlabelled="keep")
    ensure_apart(options.out, manifest)
    side_px = config.resolution * 5 // 4
    real = SquareImages(manifest, manifest.of("train", labelled=True), side_px)
    mixed = options.synthetic and SyntheticMixDataset(
        real,
        options.synthetic,
        alpha=options.alpha,
        seed=config.seed,
        return_source=True,
        soft_labels=options.soft_labels,
        data_manifest=manifest,
    )
    if mixed and mixed.lineage_status != "checked":
        refuse_copies(map(mixed.synthetic.image, range(len(mixed.synthetic))), mixed.synthetic.root, manifest)
    validation = SquareImages(manifest, manifest.of("val"), side_px)
    trained_on: JSON = {"photographs": manifest.sha256}  # of this fraction and pair
    if mixed:
        trained_on |= {"synthetic": mixed.synthetic.sha256, "alpha": options.alpha, "soft_labels": options.soft_labels}
    train_classifier(
        config,
        mixed or real,
        options.out,
        classes=manifest.classes,
        validation=validation,
        trained_on=trained_on,
    )
    result = options.out / "result.json"
    scores = read_field(read_json(result), result, "validation", dict | None)
    print(f"{_said('validation', scores)}; {options.out}" if scores else f"no validation image; {options.out}")
    if options.test_once:
        scores = evaluate_classifier(options.out, SquareImages(manifest, manifest.of("test"), side_px))
        print(f"{_said('test', scores)}; {options.out / 'predictions.npz'}")


def _said(split: str, scores: JSON) -> str:
    return f"{split} accuracy {scores['accuracy']:.3f} of {scores['n']} images"


if __name__ == "__main__":
    sys.exit(run_recipe(main))
