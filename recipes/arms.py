"""The arms of an ablation: what each classifier trains on, and the training of one of them.

R1 real images, plain augmentation; R2 the same with strong augmentation; R5, S1, S3 and N0 are R2 with a share alpha of
the real images replaced, inside each step, by another image of their class: a confidently pseudo-labelled image that
the budget has no label for (R5), a synthetic one (S1), a synthetic one that passed the filters (S3), a copy of a real
one (N0, the null). Budget, initial weights, order and draws are those of the pair in every arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier.config import ClassifierConfig
from classifier.data import SquareImages
from classifier.evaluation import load_classifier, predict
from classifier.training import train_classifier
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import ConfigError
from finegan_aug.files import read_json, sha256_file, write_bytes, write_json
from finegan_aug.lineage import LINEAGE
from finegan_aug.mixing import SyntheticMixDataset
from finegan_aug.randomness import seed_for
from finegan_aug.synthetic import MANIFEST, Header, SyntheticRow, encode, file_name, write_manifest
from finegan_aug.synthetic_index import KEPT, open_index

ARMS = ("R1", "R2", "R5", "S1", "S3", "N0")
REPLACING = ("R5", "S1", "S3", "N0")  # arms with an alpha
PSEUDO_CONFIDENCE = 0.8  # probability from which a pseudo-label is believed


@dataclass(frozen=True)
class Cell:
    """One classifier of the ablation."""

    fraction: float
    arm: str
    model: str
    pair: int
    draw: int  # number of the budget's draw; the pair, unless one draw serves all pairs
    alpha: float = 0.0  # share of the real images that are replaced

    @property
    def name(self) -> str:
        """Folder of the classifier below cells/."""
        return f"{self.fraction:g}-{self.arm}-{self.model}-{self.pair}"

    @property
    def budget(self) -> str:
        """Name of the labelled budget, and of the generator and the synthetic set made from it."""
        return f"{self.fraction:g}-{self.draw}"


def cell_config(cell: Cell, config: ClassifierConfig) -> ClassifierConfig:
    """Settings of the cell: its model, the seed of its pair, and plain augmentation in R1."""
    if cell.arm not in ARMS:
        raise ConfigError(f"an arm must be one of {', '.join(ARMS)}, found {cell.arm!r}", "correct --arms")
    config = replace(config, model=cell.model, seed=seed_for(config.seed, "pair", cell.pair))
    return replace(config, augment="flip-crop", mixup=0.0, cutmix=0.0) if cell.arm == "R1" else config


def train_cell(out: Path, cell: Cell, config: ClassifierConfig) -> Path:
    """Train the classifier of a cell in out/cells; R5 needs the finished R2 of its pair.

    Raises:
        FineGANAugError: see `train_classifier` and `SyntheticMixDataset`.
    """
    run_dir = out / "cells" / cell.name
    if (run_dir / "result.json").exists():
        return run_dir
    config = cell_config(cell, config)
    manifest, real = _budget_images(out / "budgets" / f"{cell.budget}.jsonl", ("train", "val"), config.resolution)
    pool = _pool(out, cell, config, manifest, real) if cell.alpha > 0 else None
    train_set = real if pool is None else mixed(cell, config, manifest, real, pool)
    kept = np.zeros(0) if pool is None else open_index(pool).table[:, KEPT]
    facts = {"alpha": cell.alpha, "real_images": len(real), "pool": int(kept.sum()), "generated": len(kept)}
    lineage = None if pool is None or not (pool / LINEAGE).exists() else sha256_file(pool / LINEAGE)
    write_json(run_dir / "arm.json", {**facts, "lineage": lineage})
    return train_classifier(config, train_set, run_dir, classes=manifest.classes)


def train_candidate(out: Path, cell: Cell, config: ClassifierConfig) -> Path:
    """Train a cell without the validation images and evaluate it on them, to choose alpha."""
    run_dir = out / "selection" / f"{cell.name}-{cell.alpha:g}"
    if (run_dir / "result.json").exists():
        return run_dir
    config = cell_config(cell, config)
    path = out / "budgets" / f"{cell.budget}.jsonl"
    manifest, real = _budget_images(path, ("train",), config.resolution)
    _, validation = _budget_images(path, ("val",), config.resolution)
    pool = _pool(out, cell, config, manifest, real) if cell.alpha > 0 else None
    train_set = real if pool is None else mixed(cell, config, manifest, real, pool)
    return train_classifier(config, train_set, run_dir, classes=manifest.classes, validation=validation)


def mixed(
    cell: Cell, config: ClassifierConfig, manifest: Manifest, real: SquareImages, pool: Path
) -> SyntheticMixDataset:
    """The real images of the budget with a share replaced; synthetic sets pass the firewall first."""
    return SyntheticMixDataset(
        real,
        pool,
        alpha=cell.alpha,
        seed=config.seed,
        return_source=True,
        data_manifest=manifest if cell.arm.startswith("S") else None,
    )


def _pool(out: Path, cell: Cell, config: ClassifierConfig, manifest: Manifest, real: SquareImages) -> Path | None:
    """Folder that the arm takes images from, or None where there is nothing to take."""
    if cell.arm in ("S1", "S3"):
        return out / "synthetic" / cell.budget / ("all" if cell.arm == "S1" else "filtered")
    if cell.arm == "N0":
        folder = out / "pools" / f"copies-{cell.budget}"
        return write_pool(folder, manifest.classes, real.pixels, np.asarray(real.targets))
    if cell.arm != "R5":
        return None
    rest = _images(manifest, ("train",), config.resolution, labelled=False)
    if not len(rest):
        return None
    teacher = load_classifier(out / "cells" / replace(cell, arm="R2").name)[1]
    logits, _ = predict(teacher, rest, config.resolution)  # the true labels are not looked at
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    sure = np.flatnonzero(odds.max(axis=1) / odds.sum(axis=1) >= PSEUDO_CONFIDENCE)
    if not len(sure):
        return None
    folder = out / "pools" / f"pseudo-{cell.name}"
    return write_pool(folder, manifest.classes, rest.pixels[sure], logits.argmax(axis=1)[sure])


def write_pool(
    folder: Path, classes: Sequence[str], pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> Path:
    """A set in the format of synthetic ones, uint8 [N, S, S, 3] with labels [N]; the manifest comes last."""
    if (folder / MANIFEST).exists():
        return folder
    rows = []
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        file = file_name(classes[label], int(label), number, "png")
        write_bytes(folder / file, encode(image))
        rows.append(SyntheticRow(file, classes[label], int(label), number))
    write_manifest(folder, Header(tuple(classes)), rows)
    return folder


@lru_cache(maxsize=6)  # a worker trains many cells on the same images
def _budget_images(path: Path, splits: tuple[str, ...], resolution: int) -> tuple[Manifest, SquareImages]:
    manifest = read_manifest(path)
    return manifest, _images(manifest, splits, resolution, labelled=True)


def _images(manifest: Manifest, splits: tuple[str, ...], resolution: int, *, labelled: bool | None) -> SquareImages:
    assert "test" not in splits
    return SquareImages(manifest, manifest.of(*splits, labelled=labelled), square_px(resolution))


def square_px(resolution: int) -> int:
    """Side of the squares kept in memory: a quarter more than the classifier sees, as room for crops."""
    return resolution * 5 // 4


def validation_accuracy(run_dir: Path) -> float:
    """Accuracy on the validation images at the end of a run."""
    return float(read_json(run_dir / "result.json")["validation"]["accuracy"])
