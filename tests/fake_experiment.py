"""A made-up experiment folder for the tests of the report; no number in it was ever measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fake_lineage import with_lineage
from PIL import Image

from finegan_aug.randomness import normals, permutation, seed_for, uniforms

CLASSES = [f"{body} {plumage}" for body in ("heron", "finch", "owl", "duck") for plumage in ("azure", "umber", "pied")]
MODELS = ("mobilenetv3_small_100", "vit_tiny_patch8_64")
ARMS = ("R1", "R2", "R5", "S1", "S3")
GAIN = {  # of each arm over R1, points
    (0.1, MODELS[0]): (0, 6, 9, 8, 13), (0.1, MODELS[1]): (0, 4, 6, 6, 9.5),
    (0.5, MODELS[0]): (0, 3, 3.5, 3, 4.0), (0.5, MODELS[1]): (0, 3, 4, 3.5, 3.5),
    (1.0, MODELS[0]): (0, 2, 2, 1.5, 2.1), (1.0, MODELS[1]): (0, 2, 2, -1, -2.5),
}  # fmt: skip
BASE = {0.1: 0.55, 0.5: 0.80, 1.0: 0.88}
IMAGES = 600  # of the made-up test set


def make_experiment(
    folder: Path, *, classes: list[str] = CLASSES, gans: int = 2, models: int = 2, fractions: int = 3
) -> Path:
    """Write a complete experiment folder: up to two models and three fractions, five arms, three pairs."""
    rows = [
        _row(folder, fraction, arm, model, pair, len(classes))
        for fraction in list(BASE)[:fractions] for model in MODELS[:models] for arm in ARMS for pair in range(3)
    ]  # fmt: skip
    header = {
        "primary": {"arm": "S3", "control": "R2"},
        "test_openings": 1,
        "gan_variance_included": False,
        "gan_data": "u",
        "labels": "tied",
        "rows": rows,
    }
    write(folder / "rows.json", with_lineage(folder, header))
    write(folder / "experiment.json", _header(classes))
    write(folder / "audit.json", _audit(classes))
    write(folder / "filter.json", {"rows": [_filter(name, index) for index, name in enumerate(classes)]})
    write(folder / "evaluation.json", _evaluation())
    for index in range(gans):
        _gan_run(folder / "gan" / f"{(10, 50, 100)[index % 3]}-{index}", index)
    return folder


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def change(path: Path, **values: Any) -> None:
    """Overwrite some keys of a JSON file."""
    write(path, json.loads(path.read_text()) | values)


def grid(path: Path, rows: int, columns: int, side_px: int, seed: int) -> None:
    """A grid of smooth coloured blobs, as heavy to compress as generated images."""
    draws = uniforms(seed_for(seed, path.name), np.arange(rows * columns), 3 * 16).reshape(rows, columns, 4, 4, 3)
    tiles = (255 * draws).astype(np.uint8)
    sheet = Image.new("RGB", (columns * side_px, rows * side_px))
    for row in range(rows):
        for column in range(columns):
            tile = Image.fromarray(tiles[row, column]).resize((side_px, side_px), Image.Resampling.BICUBIC)
            noise = normals(seed_for(seed, "noise", row, column), np.arange(side_px), side_px * 3) * 6
            pixels = np.asarray(tile, dtype=np.float64) + noise.reshape(side_px, side_px, 3)
            noisy = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            sheet.paste(noisy, (column * side_px, row * side_px))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _row(folder: Path, fraction: float, arm: str, model: str, pair: int, classes: int) -> dict[str, Any]:
    cell = f"{fraction:g}-{arm}-{model}-{pair}"
    level = BASE[fraction] - 0.05 * MODELS.index(model) + GAIN[fraction, model][ARMS.index(arm)] / 100
    noise = normals(seed_for(0, "pair", cell), [0], 1)[0, 0] * 0.006
    common = normals(seed_for(0, "common", f"{fraction}-{model}-{pair}"), [0], 1)[0, 0] * 0.012
    accuracy_wanted = min(0.99, level + noise + common)
    difficulty = normals(seed_for(0, "difficulty"), np.arange(IMAGES), 1)[:, 0]  # shared by all arms
    own = normals(seed_for(0, "own", cell), np.arange(IMAGES), 1)[:, 0]
    score = difficulty + 0.4 * own
    right = score <= np.quantile(score, accuracy_wanted)
    labels = np.arange(IMAGES) % classes
    predicted = np.where(right, labels, (labels + 1) % classes)
    order = permutation(seed_for(0, "order", cell), IMAGES)  # every run stores its images in its own order
    (folder / "cells" / cell).mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "cells" / cell / "predictions.npz",
        labels=labels[order].astype(np.int64),
        logits=np.eye(classes, dtype=np.float32)[predicted[order]],
        image=np.array([f"{number:064x}" for number in order]),
    )
    _curve(folder / "cells" / cell / "metrics.jsonl", cell, accuracy_wanted)
    per_class = [float(right[labels == index].mean()) for index in range(classes)]
    return {
        "fraction": fraction,
        "arm": arm,
        "model": model,
        "pair": pair,
        "steps": 1500,
        "alpha": {0.1: 0.5, 0.5: 0.4, 1.0: 0.2}[fraction] if arm.startswith("S") else 0.0,
        "pool": 1700 if arm.startswith("S") else 0,
        "accuracy": float(right.mean()),
        "top5": float(min(1.0, right.mean() + 0.1)),
        "macro_f1": float(right.mean()) - 0.005,
        "ece": 0.04,
        "worst_class_accuracy": min(per_class),
        "per_class_accuracy": per_class,
        "predictions": f"cells/{cell}/predictions.npz",
        "warnings": [],
    }


def _curve(path: Path, cell: str, final: float) -> None:
    steps = np.arange(100, 1600, 100)
    noise = normals(seed_for(0, "curve", cell), steps, 2) * 0.01
    lines = [
        {
            "step": int(step),
            "loss": 2.5 * np.exp(-step / 500) + 0.3 + float(draw[0]),
            "val_accuracy": final * (1 - np.exp(-step / 300)) + float(draw[1]),
        }
        for step, draw in zip(steps, noise, strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _header(classes: list[str]) -> dict[str, Any]:
    return {
        "title": "Drawn animals at 32 px: FineGAN images for two classifiers",
        "command": [
            "make demo",
            "python recipes/ablation.py --config demo --data /home/someone/photos/birds --out ../runs/demo",
        ],
        "data": {
            "name": "drawn animals",
            "classes": classes,
            "train_images": 2400,
            "test_images": 1200,
            "labelled_budget": {"0.1": 240, "0.5": 1200, "1.0": 2400},
            "resolution": "32 px",
        },
        "wall_clock_hours": 0.21,
        "cpu_hours": 0.39,
        "config": {"preset": "slim-32", "data": "/home/someone/photos/birds", "num_parents": 4},
        "warnings": [],
    }


def _audit(classes: list[str]) -> dict[str, Any]:
    draws = uniforms(seed_for(0, "audit"), np.arange(len(classes)), 2)
    return {
        "judge": "small CNN trained on drawn truth",
        "judge_accuracy": 0.991,
        "mask_iou": 0.71,
        "classes": [
            {"class": name, "before": 0.6 + 0.25 * a, "n_before": 200, "after": 0.86 + 0.12 * b, "n_after": 130}
            for name, (a, b) in zip(classes, draws.tolist(), strict=True)
        ],
        "codes": [
            {
                "code": code,
                "class": None if code == 5 else classes[code % len(classes)],
                "purity": 0.31 if code == 5 else 0.6 + 0.03 * code,
                "margin": 0.04 if code == 5 else 0.2 + 0.02 * code,
                "n": 180,
                "abstained": code == 5,
                "reason": "purity below 0.5" if code == 5 else "",
            }
            for code in range(10)
        ],
    }


def _filter(name: str, index: int) -> dict[str, Any]:
    dropped = {"teacher top-k": 30 + index, "confidence window": 20, "near-duplicate of a training image": index % 3}
    return {"class": name, "generated": 200, "kept": 200 - sum(dropped.values()), "dropped": dropped}


def _evaluation() -> list[dict[str, Any]]:
    lines = []
    for extractor, fid in (("small CNN on the train split", 38.2), ("efficientnet_lite0 (ImageNet)", 71.4)):
        common = {"extractor": extractor, "n_real": 1200, "n_fake": 1200, "split": "test", "gan": "10-0"}
        values = {"fid": fid, "kid": 0.0213, "precision": 0.71, "recall": 0.34, "density": 0.88, "coverage": 0.52}
        lines += [{"metric": name, "value": value, "interval": None, **common} for name, value in values.items()]
        lines[-5]["interval"] = [0.0181, 0.0244]
    extractor = "small CNN on the train split"
    score = {"metric": "inception_score", "value": 7.91, "interval": [7.6, 8.2], "extractor": extractor}
    lines.append(score | {"n_real": 0, "n_fake": 5000, "split": "none", "gan": "10-0"})
    clustering = {
        "extractor": "phi trained on generated images",
        "n_real": 1200,
        "n_fake": 0,
        "split": "test",
        "gan": "10-0",
    }
    for name, value in (
        ("nmi_geometric", 0.61),
        ("nmi_arithmetic", 0.60),
        ("clustering_accuracy", 0.58),
        ("ari", 0.44),
    ):
        lines.append({"metric": name, "value": value, "interval": None, **clustering})
    return lines


def _gan_run(folder: Path, seed: int) -> None:
    write(folder / "config.json", {"num_children": 24, "num_parents": 4, "seed": seed, "data": "/srv/private/birds"})
    kimg = np.arange(0, 120, 0.5)
    names = (
        "loss/discriminator_background",
        "loss/discriminator_child",
        "loss/info_child",
        "loss/info_parent",
        "ada/p",
    )
    noise = normals(seed_for(seed, "gan"), np.arange(len(kimg)), len(names)) * 0.08
    lines = [
        {"seen_images": int(1000 * k), "sec": 3.1 * k}
        | {name: 0.4 + np.exp(-k / (20 + 15 * i)) + float(draw[i]) for i, name in enumerate(names)}
        for k, draw in zip(kimg.tolist(), noise, strict=True)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"seen_images": 120')
    grid(folder / "reals.png", 8, 8, 32, seed)
    for kimg_seen in (40, 120):
        grid(folder / f"fakes_{kimg_seen:06}.png", 8, 8, 32, seed + kimg_seen)
    grid(folder / "codes_000120.png", 12, 8, 32, seed)
    grid(folder / "stages_000120.png", 8, 4, 32, seed)
    for name in ("c_by_p", "background_swap", "shape_swap", "appearance_swap"):
        grid(folder / "figures" / f"{name}.png", 4, 8, 32, seed)
