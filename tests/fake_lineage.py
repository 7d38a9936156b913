"""Budgets and lineages for made-up experiments, so that their verdicts have something to stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finegan_aug.data.manifest import ImageRecord, Manifest, write_manifest
from finegan_aug.files import sha256_file
from finegan_aug.lineage import LINEAGE, Lineage, write_lineage
from finegan_aug.report.rows import WITHOUT_SYNTHETIC

CLASSES = ("ant", "bee")


def image(number: int, split: str) -> ImageRecord:
    return ImageRecord(f"{number}.png", f"{0xFA4E0000 + number:064x}", f"{number:016x}", 8, 8, number % 2, split)


def budget(folder: Path) -> Manifest:
    """Six labelled images, two for validation, and three of the test split; the photographs are nowhere."""
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    return Manifest(folder, CLASSES, tuple(image(number, split) for number, split in enumerate(splits)))


def lineage_of(manifest: Manifest, *extra: str) -> Lineage:
    """Of a set whose generator saw the training images of the budget, and these."""
    images = {record.sha256: ("gan_train",) for record in manifest.of("train")} | dict.fromkeys(extra, ("gan_train",))
    generator = {"kind": "fake", "checkpoint_sha256": "0" * 64}
    return Lineage(images, manifest.classes, manifest.sha256, generator, labels="tied", gan_data="s")


def with_lineage(folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The content of rows.json with a lineage for every row that needs one; writes budgets/ and synthetic/."""
    rows = []
    for row in header["rows"]:
        if row.get("arm") not in WITHOUT_SYNTHETIC and row.get("fraction") is not None:
            name = f"{row['fraction']:g}-0"
            manifest, kept = budget(folder), folder / "synthetic" / name / "filtered"
            write_manifest(manifest, folder / "budgets" / f"{name}.jsonl")
            write_lineage(kept, lineage_of(manifest))
            row = row | {"draw": 0, "lineage": sha256_file(kept / LINEAGE)}
        rows.append(row)
    return {"lineage_checked": True} | header | {"rows": rows}
