"""The arms of an ablation: what each classifier trains on, and the training of one of them.

R1 real images, plain augmentation; R2 the same with strong augmentation. In the others, which are R2 otherwise, a share
alpha of the real images is replaced, inside each step, by another image of their class:

R5 a photograph that the budget has no label for, under the label of the generator's teacher
S1 a synthetic one; S3 a synthetic one that passed the filters; S4 a real object on a generated background
C0 as S3 with alpha 1 to the last step: synthetic images alone
N0 a copy of a real one (the null); P0 a synthetic one of any class (the poison, which must hurt)

D2 is R2 on labels that are half a teacher's: what the teacher taught the others, without any image of theirs. D5 is D2
and R5 together: every photograph under the teacher's probabilities, those with a label under half of each, to the last
step. Budget, initial weights, order and draws are those of the pair in every arm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from classifier.config import Augment, ClassifierConfig
from classifier.data import SquareImages
from classifier.training import train_classifier
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.data.wrapped import MapDataset
from finegan_aug.errors import CheckpointError, ConfigError, DataError
from finegan_aug.files import read_json, sha256_file, write_json
from finegan_aug.lineage import LINEAGE
from finegan_aug.mixing import SyntheticMixDataset
from finegan_aug.randomness import seed_for
from finegan_aug.synthetic_index import KEPT, open_index
from finegan_aug.typed import read_field
from recipes.distilled import Distilled
from recipes.workers import each

ARMS = ("R1", "R2", "D2", "R5", "D5", "S1", "S3", "S4", "C0", "N0", "P0")
REAL_ONLY = ("R1", "R2", "D2")  # the arms without alpha
NAMED = ("R5", "D5", "S1", "S3", "C0")  # the arms whose pools have soft labels, those of their teacher
REPLACED = ("C0", "D5")  # the arms with alpha 1 to the last step
SYNTHETIC = ("S1", "S3", "S4", "C0", "P0")  # the arms with something generated, whose lineage is checked


@dataclass(frozen=True)
class Cell:
    """One classifier of the ablation."""

    fraction: float
    arm: str
    model: str
    pair: int
    draw: int  # number of the budget's draw; the pair, unless one draw serves all pairs
    alpha: float = 0.0  # share of the real images that are replaced
    augment: Augment | None = None  # chosen on validation; None: as configured
    pool: Path | None = None  # folder that images are taken from, D2: labels; None: there is nothing to take
    soft_labels: bool = False  # the images of the pool have the teacher's probabilities for labels

    @property
    def name(self) -> str:
        """Folder of the classifier below cells/."""
        return f"{self.fraction:g}-{self.arm}-{self.model}-{self.pair}"

    @property
    def budget(self) -> str:
        """Name of the labelled budget, and of the generator and the synthetic set made from it."""
        return f"{self.fraction:g}-{self.draw}"

    @property
    def setting(self) -> tuple[float, str]:
        """What a choice on validation holds for: fraction and model."""
        return self.fraction, self.model


def cell_config(cell: Cell, config: ClassifierConfig) -> ClassifierConfig:
    """Settings of the cell: model, seed of its pair, augmentation; what replaces all has no last part without pool."""
    if cell.arm not in ARMS:
        raise ConfigError(f"an arm must be one of {', '.join(ARMS)}, found {cell.arm!r}", "correct --arms")
    seed = seed_for(config.seed, "pair", cell.pair)
    config = replace(config, model=cell.model, seed=seed, augment=cell.augment or config.augment)
    if cell.arm == "R1":
        return replace(config, augment="flip-crop", mixup=0.0, cutmix=0.0)
    return replace(config, real_only_share=0.0) if cell.arm in REPLACED else config


def train_cell(out: Path, cell: Cell, config: ClassifierConfig) -> Path:
    """Train the classifier of a cell in out/cells; a finished one is left as it is.

    Raises:
        FineGANAugError: it was trained with another alpha; see also `train_classifier` and `SyntheticMixDataset`.
    """
    run_dir = out / "cells" / cell.name
    if (run_dir / "result.json").exists():
        before = read_field(read_json(run_dir / "arm.json"), run_dir / "arm.json", "alpha", float)
        if before != cell.alpha:
            raise CheckpointError(
                f"{run_dir} must have been trained with alpha {cell.alpha:g}, found {before:g}", "use another --out"
            )
        return run_dir
    config = cell_config(cell, config)
    manifest, real = budget_images(out, cell, ("train", "val"), config.resolution)
    train_set, pool = mixed(cell, config, manifest, real), cell.pool if cell.alpha > 0 else None
    kept = np.zeros(0) if pool is None else open_index(pool).table[:, KEPT]
    seen = 0 if cell.arm == "C0" else len(real)
    facts = {"alpha": cell.alpha, "real_images": seen, "pool": int(kept.sum()), "generated": len(kept)}
    lineage = None if pool is None or not (pool / LINEAGE).exists() else sha256_file(pool / LINEAGE)
    write_json(run_dir / "arm.json", {**facts, "lineage": lineage})
    return train_classifier(config, train_set, run_dir, classes=manifest.classes)


def train_candidate(out: Path, cell: Cell, config: ClassifierConfig) -> Path:
    """Train a cell without the validation images and evaluate it on them, to choose alpha or augmentation.

    Raises:
        DataError: the budget has no validation image.
    """
    config = cell_config(cell, config)
    run_dir = out / "selection" / f"{cell.name}-{config.augment}-{cell.alpha:g}"
    if (run_dir / "result.json").exists():
        return run_dir
    manifest, real = budget_images(out, cell, ("train",), config.resolution)
    _, validation = budget_images(out, cell, ("val",), config.resolution)
    if not len(validation):
        raise DataError(
            f"a choice on validation needs classes of 2 or more labelled images, found none at fraction "
            f"{cell.fraction:g}",
            "use a larger fraction, or no grid",
        )
    train_set = mixed(cell, config, manifest, real)
    return train_classifier(config, train_set, run_dir, classes=manifest.classes, validation=validation)


def run_cells(
    train: Callable[[Path, Cell, ClassifierConfig], Path],
    out: Path,
    cells: Sequence[Cell],
    config: ClassifierConfig,
    jobs: int,
) -> list[Path]:
    """Train these cells, `jobs` at once; returns their folders in order."""
    started, done = time.monotonic(), dict[int, Path]()
    config = replace(config, threads=1) if jobs > 1 else config
    for index, folder in each(train, [(out, cell, config) for cell in cells], jobs):
        done[index] = folder
        print(f"[{len(done)}/{len(cells)}] {folder.name} after {time.monotonic() - started:.0f} s", flush=True)
    return [done[index] for index in range(len(cells))]


def mixed(cell: Cell, config: ClassifierConfig, manifest: Manifest, real: SquareImages) -> MapDataset:
    """The real images of the budget with a share replaced; what was generated passes the firewall first."""
    if cell.arm == "D2" and cell.pool is not None:
        return Distilled(real, cell.pool)
    if cell.pool is None or cell.alpha == 0:
        return real
    return SyntheticMixDataset(
        real,
        cell.pool,
        alpha=cell.alpha,
        seed=config.seed,
        return_source=True,
        soft_labels=cell.soft_labels and cell.arm in NAMED,
        data_manifest=manifest if cell.arm in SYNTHETIC else None,
    )


def budget_images(out: Path, cell: Cell, splits: tuple[str, ...], resolution: int) -> tuple[Manifest, SquareImages]:
    """The budget of a cell, and its labelled images of these splits."""
    return _labelled_images(out / "budgets" / f"{cell.budget}.jsonl", splits, resolution)


@lru_cache(maxsize=6)  # a worker trains many cells on the same images
def _labelled_images(path: Path, splits: tuple[str, ...], resolution: int) -> tuple[Manifest, SquareImages]:
    assert "test" not in splits
    manifest = read_manifest(path)
    return manifest, SquareImages(manifest, manifest.of(*splits, labelled=True), square_px(resolution))


def square_px(resolution: int) -> int:
    """Side of the squares kept in memory: a quarter more than the classifier sees, as room for crops."""
    return resolution * 5 // 4


def validation_accuracy(run_dir: Path) -> float:
    """Accuracy on the validation images at the end of a run.

    Raises:
        DataError: result.json is damaged.
    """
    path = run_dir / "result.json"
    return float(read_field(read_json(path), path, "validation.accuracy", float))
