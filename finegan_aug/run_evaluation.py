"""Evaluation of a run folder: its generator against photographs, and, for discovered codes, the map to classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from finegan_aug.codes import CodeAudit, audit_codes, child_to_class, deal_codes
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.evaluation import class_consistency, cluster_with_generated, evaluate_images
from finegan_aug.features import Extractor, fit_classifier, inception_extractor, packaged_extractor, small_cnn_extractor
from finegan_aug.files import JSON, read_json, write_json
from finegan_aug.grids import to_uint8
from finegan_aug.models.finegan import Generator
from finegan_aug.randomness import normals, seed_for
from finegan_aug.synthesis import load_generator

Features = Literal["small-cnn", "packaged", "inception"]
BLOCK = 64


def evaluate_run(
    run_dir: Path,
    manifest: Manifest,
    *,
    features: tuple[Features, ...] = ("small-cnn",),
    inception_file: Path | None = None,
    split: str = "test",
    num_images: int = 2000,
    kimg: float = 20.0,
    cluster: bool = True,
    seed: int = 0,
) -> list[JSON]:
    """Measure the averaged generator of a run; writes evaluation.json, and audit.json for discovered codes.

    Real and generated images are compared as the training saw them: central object crops.

    Args:
        run_dir: a training run with a checkpoint.
        manifest: photographs with the splits train and `split`.
        features: networks that give the features. small-cnn: trained here on the labelled train split.
        inception_file: weights for "inception", by torch-fidelity.
        num_images: generated images, every code equally often.
        kimg: length of training of each small network, thousands of images.
        cluster: also cluster the real images with networks trained on generated ones (section 4.4 of the paper).

    Returns:
        The rows of evaluation.json (`evaluation.evaluate_images`).

    Raises:
        CheckpointError: the run has no good checkpoint.
        DataError: the split holds no images, or lacks boxes that the run was trained with.
    """
    config = FineGANConfig.from_json(read_json(run_dir / "config.json")["config"])
    generator = load_generator(run_dir)
    train_images, train_labels = _crops(manifest, "train", config)
    real, labels = _crops(manifest, split, config)
    fake, child, _ = sample(generator, config, num_images, seed_for(seed, "evaluate/samples"))
    known = train_labels >= 0
    judge = fit_classifier(
        train_images[known],
        train_labels[known],
        num_classes=len(manifest.classes),
        seed=seed_for(seed, "evaluate/judge"),
        kimg=kimg,
    )
    extractors: dict[str, Extractor] = {"small-cnn": small_cnn_extractor(judge)}
    if "packaged" in features:
        extractors["packaged"] = packaged_extractor()
    if "inception" in features:
        extractors["inception"] = inception_extractor(inception_file or Path("inception.pth"))
    chosen = [extractors[name] for name in features]
    rows = evaluate_images(real=real, fake=fake, extractors=chosen, seed=seed, split=split)

    if config.labels == "tied":
        intended = child_to_class(len(manifest.classes), config.modes_per_class)[child]
        rows.append(class_consistency(images=fake, labels=intended, judge=extractors["small-cnn"], split="train"))
    codes = {"num_children": config.num_children or 0, "num_parents": config.num_parents or 0}
    settings = {"seed": seed, "num_generated": num_images, "kimg": kimg}

    def sample_fn(count: int, draw: int) -> tuple[Tensor, Tensor, Tensor]:
        return sample(generator, config, count, draw)

    if cluster:
        rows += cluster_with_generated(sample_fn, real, labels, split=split, **codes, **settings).rows  # type: ignore[arg-type]
    if config.labels == "discovered":
        found = cluster_with_generated(sample_fn, train_images, train_labels, split="train", **codes, **settings)  # type: ignore[arg-type]
        audit = audit_codes(
            torch.from_numpy(found.child),
            train_labels,
            num_children=codes["num_children"],
            num_classes=len(manifest.classes),
        )
        write_json(run_dir / "audit.json", _audit(audit, manifest.classes))
    write_json(run_dir / "evaluation.json", {"rows": rows})
    return rows


def sample(generator: Generator, config: FineGANConfig, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """`count` images uint8 [N, 3, S, S] with their child and parent codes, every child code equally often."""
    z = torch.from_numpy(normals(seed_for(seed, "z"), list(range(count)), config.z_dim)).float()
    child = deal_codes(seed, 0, count, config.num_children or 1)
    with torch.no_grad():
        blocks = zip(torch.split(z, BLOCK), torch.split(child, BLOCK), strict=True)
        images = torch.cat([to_uint8(generator(noise, codes).child) for noise, codes in blocks])
    return images, child, generator.child_to_parent[child]


def _crops(manifest: Manifest, split: str, config: FineGANConfig) -> tuple[Tensor, Tensor]:
    """Central object crops uint8 [N, 3, S, S] and labels int64 [N] of one split."""
    records = manifest.of(split)
    crops = build_crops(manifest, resolution=config.resolution, boxes=config.boxes, records=records)
    return crops.objects_center_uint8(torch.arange(len(crops))), crops.labels


def _audit(audit: CodeAudit, classes: tuple[str, ...]) -> JSON:
    """The audit, and beside it the same rows as the report shows them."""
    codes = [
        {
            "code": row.code,
            "class": None if row.first_class is None else classes[row.first_class],
            "purity": row.purity,
            "margin": row.margin,
            "n": row.size,
            "abstained": not row.kept,
            "reason": row.reason,
        }
        for row in audit.rows
    ]
    return {**audit.to_json(), "codes": codes}
