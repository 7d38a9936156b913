"""A teacher that learned from real training images only, fitted for a synthetic set, and filtering with it.

It is the small network, or a probe on packaged features; with a probe the set imports what ImageNet taught these.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from finegan_aug.config import Knowledge
from finegan_aug.data.crops import build_crops
from finegan_aug.data.decode import decode
from finegan_aug.data.duplicates import dhash
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.data.objects import BoxSource
from finegan_aug.errors import DataError
from finegan_aug.filtering import FilterReport, filter_synthetic
from finegan_aug.lineage import UNLABELLED, Lineage, imagenet_parent, read_lineage, write_lineage
from finegan_aug.packaged import LITE0, packaged_sha256
from finegan_aug.probe import Probe
from finegan_aug.small_cnn import SmallClassifier
from finegan_aug.synthetic import Header, read_rows
from finegan_aug.synthetic_index import open_index
from finegan_aug.teaching import fit_teacher

USED_BY = "filter_teacher"


@dataclass(frozen=True, eq=False)
class Taught:
    """A teacher, and the training images that it has seen."""

    fitted: Probe | SmallClassifier
    classes: tuple[str, ...]
    records: list[ImageRecord]
    images: Tensor  # uint8 [N, 3, S, S], as large as the synthetic ones
    imports: bool  # ImageNet taught it

    def noted_in(self, lineage: Lineage, used_by: str) -> Lineage:
        """The lineage of a set after this teacher has had a part in it, as `used_by`.

        Photographs that already stand there keep their roles: what this teacher saw without a label may have told the
        generator its own.
        """
        looked_at = [r.sha256 for r in self.records if not r.labelled and r.sha256 not in lineage.real_images]
        lineage = lineage.with_role("filter_teacher", [record.sha256 for record in self.records if record.labelled])
        lineage = lineage.with_role(UNLABELLED, looked_at)
        now = (imagenet_parent(used_by, LITE0, packaged_sha256()),) if self.imports else ()
        others = tuple(parent for parent in lineage.parents if parent not in now)
        return replace(lineage, parents=(*others, *now))


def teach(
    synthetic: Path,
    manifest: Manifest,
    *,
    boxes: BoxSource | None = None,
    teacher: Knowledge = "own",
    teacher_kimg: float = 20.0,
    seed: int = 0,
) -> Taught:
    """Fit a teacher on the labelled training images, cut and scaled as those of a synthetic set are.

    Args:
        synthetic: folder of the set.
        manifest: real images; the train split is used, without the labels of images that are not labelled.
        boxes: where the object is in them, as in the training of the generator; used where the set shows crops.
            Default: given where every photograph has a box, otherwise none.
        teacher: "own", a small network trained from scratch; "packaged", a probe on the features of an ImageNet
            network, which are then also those that show copies.
        teacher_kimg: length of the training of the own teacher, thousands of images.

    Raises:
        ConfigError: the packaged teacher is not installed.
    """
    lineage = read_lineage(synthetic)
    # a generator that saw the labelled budget alone keeps its claim only if its filter sees no more
    records = manifest.of("train", labelled=True if lineage is not None and _saw_alone(lineage, manifest) else None)
    images = shown_images(synthetic, manifest, records, boxes)
    labels = torch.tensor([record.label if record.labelled else -1 for record in records])
    fitted = fit_teacher(teacher, images, labels, num_classes=len(manifest.classes), seed=seed, kimg=teacher_kimg)
    return Taught(fitted, manifest.classes, records, images, teacher == "packaged")


def _saw_alone(lineage: Lineage, manifest: Manifest) -> bool:
    """Whether nothing but labelled images of this manifest stands behind a set."""
    known = {record.sha256 for record in manifest.of("train", labelled=True)}
    return lineage.gan_data == "s" or (bool(lineage.real_images) and known.issuperset(lineage.real_images))


def filter_taught(
    out_dir: Path,
    taught: Taught,
    *,
    top_k: int | None = None,
    drop_lowest_confidence: float = 0.1,
    max_confidence: float | None = None,
    drop_outliers: float = 0.0,
) -> FilterReport:
    """`filter_synthetic` by this teacher and against copies of what it has seen; the lineage says who had a part.

    Raises:
        DataError: the set has other classes than the data.
    """
    _check_classes(open_index(out_dir).header, taught.classes)
    lineage = read_lineage(out_dir)
    if lineage is not None:
        lineage = taught.noted_in(lineage, USED_BY)
        # Before the manifest is written: wherever this is broken off, the lineage names all that taught the set.
        write_lineage(out_dir, lineage)
    report = filter_synthetic(
        out_dir,
        teacher=taught.fitted.logits,
        top_k=top_k,
        drop_lowest_confidence=drop_lowest_confidence,
        max_confidence=max_confidence,
        drop_outliers=drop_outliers,
        features_fn=taught.fitted.features,
        train_features=taught.fitted.features(taught.images),
        train_dhashes=[record.dhash for record in taught.records]
        + [dhash(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in taught.images],
    )
    if lineage is not None:  # this teacher alone is left of those that filtered
        others = tuple(parent for parent in lineage.parents if parent.get("used_by") != USED_BY)
        write_lineage(out_dir, taught.noted_in(replace(lineage, parents=others), USED_BY))
    return report


def filter_with_teacher(
    out_dir: Path,
    manifest: Manifest,
    *,
    boxes: BoxSource | None = None,
    teacher: Knowledge = "own",
    teacher_kimg: float = 20.0,
    seed: int = 0,
    top_k: int | None = None,
    drop_lowest_confidence: float = 0.1,
    max_confidence: float | None = None,
    drop_outliers: float = 0.0,
) -> FilterReport:
    """`teach` and `filter_taught` in one.

    Raises:
        ConfigError: the packaged teacher is not installed.
        DataError: the set has other classes than the data.
    """
    _check_classes(read_rows(out_dir)[0], manifest.classes)
    taught = teach(out_dir, manifest, boxes=boxes, teacher=teacher, teacher_kimg=teacher_kimg, seed=seed)
    return filter_taught(
        out_dir,
        taught,
        top_k=top_k,
        drop_lowest_confidence=drop_lowest_confidence,
        max_confidence=max_confidence,
        drop_outliers=drop_outliers,
    )


def _check_classes(header: Header, classes: tuple[str, ...]) -> None:
    if header.classes != classes:
        raise DataError(
            f"the synthetic set must have the classes {list(classes)}, found {list(header.classes)}",
            "name the photographs its generator was trained on",
        )


def shown_images(synthetic: Path, manifest: Manifest, records: list[ImageRecord], boxes: BoxSource | None) -> Tensor:
    """These photographs, cut and scaled as the images of a set are: crops of objects, or whole, uint8 [N, 3, S, S]."""
    index = open_index(synthetic)
    resolution = index.side_px()
    crop = index.header.made_with.get("placement") == "crop"
    return _crops(manifest, records, resolution, boxes) if crop else square_images(manifest, records, resolution)


def _crops(manifest: Manifest, records: list[ImageRecord], side_px: int, boxes: BoxSource | None) -> Tensor:
    """Central object crops, uint8 [N, 3, S, S]."""
    boxes = boxes or ("given" if all(record.box for record in records) else "none")
    crops = build_crops(manifest, resolution=side_px, boxes=boxes, records=records)
    return crops.objects_center_uint8(torch.arange(len(crops)))


def square_images(manifest: Manifest, records: list[ImageRecord], side_px: int) -> Tensor:
    """The largest central square of each photograph, uint8 [N, 3, S, S]."""

    def square(record: ImageRecord) -> Image.Image:
        return ImageOps.fit(decode(manifest.file(record)), (side_px, side_px), Image.Resampling.BICUBIC)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = np.stack([np.asarray(image) for image in pool.map(square, records)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
