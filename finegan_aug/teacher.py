"""Filtering with a teacher that learned from real training images only, fitted and applied.

It is the small network, or a probe on packaged features; with a probe the set imports what ImageNet taught these.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from finegan_aug.lineage import UNLABELLED, imagenet_parent, read_lineage, write_lineage
from finegan_aug.packaged import LITE0, packaged_sha256
from finegan_aug.synthetic import read_rows
from finegan_aug.synthetic_index import open_index
from finegan_aug.teaching import fit_teacher


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
) -> FilterReport:
    """Fit a teacher on the labelled training images, filter a synthetic set with it, and note who had a part in it.

    Args:
        out_dir: folder of the synthetic set.
        manifest: real images; the train split is used, without the labels of images that are not labelled.
        boxes: where the object is in them, as in the training of the generator; used where the set shows crops.
            Default: given where every photograph has a box, otherwise none.
        teacher: "own", a small network trained from scratch; "packaged", a probe on the features of an ImageNet
            network, which are then also those that show copies.
        teacher_kimg: length of the training of the own teacher, thousands of images.
        top_k, drop_lowest_confidence, max_confidence: as in `filter_synthetic`.

    Raises:
        ConfigError: the packaged teacher is not installed.
        DataError: the set has other classes than the data.
    """
    header, _ = read_rows(out_dir)
    if header.classes != manifest.classes:
        raise DataError(
            f"the synthetic set must have the classes {list(manifest.classes)}, found {list(header.classes)}",
            "name the photographs its generator was trained on",
        )
    resolution = open_index(out_dir).side_px()
    lineage = read_lineage(out_dir)
    # a generator that saw the labelled budget alone keeps its claim only if its filter sees no more
    labelled = None if lineage is None or lineage.gan_data == "u" else True
    records = manifest.of("train", labelled=labelled)
    crop = header.made_with.get("placement") == "crop"
    images = _crops(manifest, records, resolution, boxes) if crop else _whole(manifest, records, resolution)
    labels = torch.tensor([record.label if record.labelled else -1 for record in records])
    fitted = fit_teacher(teacher, images, labels, num_classes=len(manifest.classes), seed=seed, kimg=teacher_kimg)
    if lineage is not None:
        lineage = lineage.with_role("filter_teacher", [record.sha256 for record in records if record.labelled])
        lineage = lineage.with_role(UNLABELLED, [record.sha256 for record in records if not record.labelled])
        now = (imagenet_parent("filter_teacher", LITE0, packaged_sha256()),) if teacher == "packaged" else ()
        others = tuple(parent for parent in lineage.parents if parent not in now)
        # Before the manifest is written: wherever this is broken off, the lineage names all that taught the set.
        write_lineage(out_dir, replace(lineage, parents=(*others, *now)))
    report = filter_synthetic(
        out_dir,
        teacher=fitted.logits,
        top_k=top_k,
        drop_lowest_confidence=drop_lowest_confidence,
        max_confidence=max_confidence,
        features_fn=fitted.features,
        train_features=fitted.features(images),
        train_dhashes=[record.dhash for record in records]
        + [dhash(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images],
    )
    if lineage is not None:
        kept = tuple(parent for parent in others if parent.get("used_by") != "filter_teacher")
        write_lineage(out_dir, replace(lineage, parents=(*kept, *now)))
    return report


def _crops(manifest: Manifest, records: list[ImageRecord], side_px: int, boxes: BoxSource | None) -> Tensor:
    """Central object crops, uint8 [N, 3, S, S]."""
    boxes = boxes or ("given" if all(record.box for record in records) else "none")
    crops = build_crops(manifest, resolution=side_px, boxes=boxes, records=records)
    return crops.objects_center_uint8(torch.arange(len(crops)))


def _whole(manifest: Manifest, records: list[ImageRecord], side_px: int) -> Tensor:
    """The largest central square of each photograph, uint8 [N, 3, S, S]."""

    def square(record: ImageRecord) -> Image.Image:
        return ImageOps.fit(decode(manifest.file(record)), (side_px, side_px), Image.Resampling.BICUBIC)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = np.stack([np.asarray(image) for image in pool.map(square, records)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
