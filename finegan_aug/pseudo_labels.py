"""Which label each training image may teach the generator: its own, a confident teacher's, or none."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from finegan_aug.clusters import cluster_codes
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.views import Crops
from finegan_aug.files import read_json, write_json
from finegan_aug.fitting import sure_answers
from finegan_aug.teaching import fit_teacher
from finegan_aug.typed import read_field

TEACHER_KIMG = 16.0


def training_labels(config: FineGANConfig, crops: Crops, run_dir: Path) -> Tensor:
    """Labels for training, int64 [len(crops)], -1 for none; kept in run_dir/labels.json.

    With tied labels and unlabelled images a teacher that learned from the labelled crops names those it is sure of:
    see `finegan_aug.teaching`. Discovered codes use no label at all; with `clusters` a photograph's own code takes its
    place (`finegan_aug.clusters`).

    Raises:
        ConfigError: the packaged teacher is not installed.
    """
    own = crops.labels.cpu()
    if config.labels == "discovered":
        return cluster_codes(config, crops, run_dir) if config.clusters else torch.full_like(own, -1)
    if config.pseudo_labels is None or bool((own >= 0).all()) or bool((own < 0).all()):
        return own
    path = run_dir / "labels.json"
    if not path.exists():
        write_json(path, _named_by_teacher(config, crops, own, confidence=config.pseudo_labels))
    return torch.tensor(read_field(read_json(path), path, "labels", list[int]), dtype=torch.int64)


def asks_teacher(config: FineGANConfig, manifest: Manifest) -> bool:
    """Whether a teacher names photographs for a training on these: there are some with and some without a label."""
    wanted = config.labels == "tied" and config.pseudo_labels is not None
    return wanted and len({image.labelled for image in manifest.of("train")}) == 2


def _named_by_teacher(config: FineGANConfig, crops: Crops, own: Tensor, *, confidence: float) -> dict[str, object]:
    images = crops.objects_center_uint8(torch.arange(len(crops), device=crops.device))
    known = own >= 0
    teacher = fit_teacher(
        config.teacher, images, own, num_classes=config.num_classes or 0, seed=config.seed, kimg=TEACHER_KIMG
    )
    answers = sure_answers(teacher.logits(images), confidence=confidence).cpu()
    labels = torch.where(known, own, answers)
    return {
        "labels": labels.tolist(),
        "teacher_sha256": teacher.sha256,
        "labelled": int(known.sum()),
        "named_by_teacher": int(((answers >= 0) & ~known).sum()),
        "without_label": int((labels < 0).sum()),
    }
