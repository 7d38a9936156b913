"""The opening of the test images: once, after every classifier of an ablation is trained and its weights are hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.config import ClassifierConfig
from classifier.data import SquareImages
from classifier.evaluation import evaluate_classifier
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import CheckpointError
from finegan_aug.files import JSON, read_json, sha256_file, write_bytes, write_json
from finegan_aug.lineage import LINEAGE, read_lineage
from finegan_aug.report.words import knows_imagenet
from finegan_aug.typed import read_field
from recipes.arms import SYNTHETIC, Cell, square_px
from recipes.choosing import chooses_control, primary
from recipes.sets import WITHOUT_LABELS, filter_rows, generator_folder

if TYPE_CHECKING:
    from recipes.ablation import AblationOptions

SPLIT_FOLDERS = ("train", "training", "images")
SCORES = {
    **dict.fromkeys(("accuracy", "top5", "macro_f1", "ece", "worst_class_accuracy"), float),
    "per_class_accuracy": list[float | None],
}


def open_test(options: AblationOptions, config: ClassifierConfig, manifest: Manifest, cells: Sequence[Cell]) -> Path:
    """Write frozen.json, evaluate all cells in one pass, count the opening, write rows.json and experiment.json.

    An interrupted opening goes on as the same one. Other weights or more cells make a new opening, which is counted.

    Raises:
        CheckpointError: a cell has lost its weights, or they do not fit its config.json.
        DataError: another file of a cell, or opening.json, is damaged.
    """
    out = options.out
    weights = {cell.name: _weights_sha256(out / "cells" / cell.name) for cell in cells}
    frozen = {"weights": weights, "data": manifest.sha256, "primary": primary(options)}
    digest = hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()
    write_json(out / "frozen.json", {**frozen, "sha256": digest})
    openings = count_opening(out / "opening.json", digest)
    test = None
    rows = []
    for cell in cells:
        folder = out / "cells" / cell.name
        scores = read_json(folder / "test.json") if (folder / "test.json").exists() else {}
        if scores.get("model_sha256") != weights[cell.name]:
            test = test or SquareImages(manifest, manifest.of("test"), square_px(config.resolution))
            scores = {**evaluate_classifier(folder, test), "model_sha256": weights[cell.name]}
            write_json(folder / "test.json", scores)
        rows.append(_row(options, cell, folder, scores))
        if rows[-1]["lineage"] is not None:
            _keep_lineage(out, cell, rows[-1]["lineage"])
    write_json(out / "filter.json", {"rows": filter_rows(options.sets / "synthetic")})
    write_facts(out / "experiment.json", _facts(options, config, manifest, cells))
    write_json(out / "rows.json", {**_header(options, config, cells), "test_openings": openings, "rows": rows})
    return out / "rows.json"


def _weights_sha256(folder: Path) -> str:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} must hold the trained weights, found no {path.name}",
            "remove that folder; the same command trains it again",
        )
    return sha256_file(path)


def _keep_lineage(out: Path, cell: Cell, sha256: str) -> None:
    """Copy the lineage a cell was trained with into the experiment, where the report checks it: sets may lie elsewhere,
    and stay behind when the experiment is published."""
    assert cell.pool is not None
    source, kept = cell.pool / LINEAGE, out / "lineages" / sha256[:16] / LINEAGE
    if not kept.exists() and sha256_file(source) == sha256:  # a set that was made anew since is not what it saw
        write_bytes(kept, source.read_bytes())


def write_facts(path: Path, facts: JSON) -> None:
    """Write experiment.json; the hours that a recipe noted there stay, as long as they are of the same experiment."""
    before = read_json(path) if path.exists() else {}
    if before.get("config") == facts["config"] and "wall_clock_hours" in before:
        facts = {**facts, "wall_clock_hours": before["wall_clock_hours"]}
    write_json(path, facts)


def count_opening(record: Path, digest: str) -> int:
    """Number of openings so far, this one included; the same frozen weights again are the same opening."""
    openings: list[str] = read_field(read_json(record), record, "openings", list[str]) if record.exists() else []
    if openings[-1:] != [digest]:
        openings = [*openings, digest]
        write_json(record, {"openings": openings, "count": len(openings)})
    return len(openings)


def _row(options: AblationOptions, cell: Cell, folder: Path, scores: JSON) -> JSON:
    path, kinds = folder / "arm.json", {"pool": int, "real_images": int, "lineage": str | None}
    content = read_json(path)
    arm = {name: read_field(content, path, name, kind) for name, kind in kinds.items()}
    result, test = folder / "result.json", folder / "test.json"
    warnings: list[str] = []
    if cell.alpha == 0 and cell.arm in SYNTHETIC:
        warnings.append("alpha 0: no synthetic image was mixed in")
    if cell.arm == "R5" and not arm["pool"]:
        warnings.append("the generator's teacher named no image outside the budget: R5 is R2")
    filtered = options.sets / "synthetic" / cell.budget / "filter.json"
    if cell.alpha and cell.arm in ("S3", "C0") and filtered.exists():
        warnings += read_field(read_json(filtered), filtered, "warnings", list[str])
    return {
        "fraction": cell.fraction,
        "arm": cell.arm,
        "model": cell.model,
        "pair": cell.pair,
        "draw": cell.draw,
        "steps": read_field(read_json(result), result, "steps", int),
        "alpha": cell.alpha,
        "pool": arm["pool"],
        "real_images": arm["real_images"],
        "lineage": arm["lineage"],
        "gan_data": options.gan_data if cell.arm in SYNTHETIC else None,
        "model_sha256": scores["model_sha256"],
        "predictions": f"cells/{cell.name}/predictions.npz",
        "warnings": warnings,
        **{name: read_field(scores, test, name, kind) for name, kind in SCORES.items()},
    }


def _header(options: AblationOptions, config: ClassifierConfig, cells: Sequence[Cell]) -> JSON:
    sets = sorted({cell.budget for cell in cells if cell.arm in SYNTHETIC})
    lineages = [read_lineage(options.sets / "synthetic" / name / "all") for name in sets]
    header: dict[str, Any] = {"primary": primary(options), "notes": _notes(options, config)}
    if options.mixing_arm is not None:
        header["guard"] = read_json(options.out / "alpha.json")["chosen"] if options.alpha_grid else []
    if sets:
        header["lineage_checked"] = all(lineage is not None for lineage in lineages)  # checked at every mixing
        shared = any(generator_folder(options.sets, name).name == WITHOUT_LABELS for name in sets)
        header["gan_variance_included"] = options.generator_per_pair and not shared
        header["gan_data"] = options.gan_data
        header["labels"] = next((lineage.labels for lineage in lineages if lineage is not None), None)
        settings = [generator_folder(options.sets, name) / "config.json" for name in sets]
        header["imagenet_features"] = any(knows_imagenet(read_json(path)) for path in settings if path.exists())
    return header


def _notes(options: AblationOptions, config: ClassifierConfig) -> list[str]:
    notes = []
    if options.soft_labels:
        notes.append("Mixed images have the probabilities of a teacher for labels.")
    if not options.generator_per_pair:
        notes.append("One labelled budget serves all pairs of a fraction: its variance is not included.")
    if options.augment_grid:
        notes.append("R2's augmentation was chosen on the validation images of pair 0.")
    if chooses_control(options):
        notes.append("The control, R1 or R2, is the better one on the validation images of pair 0.")
    if options.validates and (options.sets / "gan" / WITHOUT_LABELS).exists():
        notes.append("The generator has seen the photographs held out for these choices, without their labels.")
    if options.sets_from is not None:
        path = options.sets_from / "ablation.json"
        side_px = read_field(read_json(path), path, "classifier.resolution", int)
        made = "" if side_px == config.resolution else f", made for classifiers at {side_px} px"
        notes.append(f"Generators and synthetic images are those of {options.sets_from.absolute().name}{made}.")
    return notes


def _facts(options: AblationOptions, config: ClassifierConfig, manifest: Manifest, cells: Sequence[Cell]) -> JSON:
    counts: JSON = {f"{split}_images": len(manifest.of(split)) for split in ("train", "test")}
    budgets = {f"{cell.fraction:g}": options.out / "budgets" / f"{cell.budget}.jsonl" for cell in cells}
    counts["labelled_budget"] = {
        fraction: len(read_manifest(path).of("train", "val", labelled=True)) for fraction, path in budgets.items()
    }
    return {
        "title": "Do the synthetic images help?",
        "data": {"name": data_name(manifest.root), "classes": list(manifest.classes), **counts},
        "config": {
            "arms": list(options.arms),
            "pairs": options.pairs,
            "per_class": options.per_class,
            **config.to_json(),
        },
        "warnings": [],
    }


def data_name(root: Path) -> str:
    """Name of the data set: that of its folder, or of the folder above where it only names the split (birds/train)."""
    root = root.absolute()
    name = root.parent.name if root.name.lower() in SPLIT_FOLDERS else root.name
    return name.replace("-", " ").replace("_", " ")
