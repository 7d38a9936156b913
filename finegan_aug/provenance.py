"""What a synthetic set says of itself: a manifest row for each image, and where the images come from."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import DataError
from finegan_aug.files import JSON, read_json
from finegan_aug.lineage import UNLABELLED, Lineage, imagenet_parent, read_lineage, write_lineage
from finegan_aug.packaged import LITE0, LITE1, PackagedModel
from finegan_aug.pseudo_labels import asks_teacher
from finegan_aug.synthetic import MANIFEST, Header, SyntheticRow, read_rows, write_manifest
from finegan_aug.trained import TrainedRun
from finegan_aug.typed import read_field

IMPORTED = "imported.json"  # in a run folder: files by which others began it, on photographs that are not known here


def write_records(out_dir: Path, header: Header, rows: list[SyntheticRow], lineage: Lineage | None) -> None:
    """Writes manifest and lineage, unless this very set has them: then they stay, with what a filter noted in them.

    Args:
        lineage: None where the origin is not known; the folder then has no lineage.json.
    """
    if not _are_written(out_dir, header, rows, lineage):
        write_manifest(out_dir, header, rows)
        if lineage is not None:
            write_lineage(out_dir, lineage)


def _are_written(out_dir: Path, header: Header, rows: list[SyntheticRow], lineage: Lineage | None) -> bool:
    try:
        before = read_lineage(out_dir)
        if (before is None) != (lineage is None) or not (out_dir / MANIFEST).exists():
            return False
        found_header, found = read_rows(out_dir)
    except DataError:
        return False  # damaged, so written anew
    same_images = [(row.file, row.sha256) for row in found] == [(row.file, row.sha256) for row in rows]
    same_origin = True
    if before and lineage:  # a filter adds roles and parents
        noted = all(parent in before.parents for parent in lineage.parents)
        same_origin = noted and replace(before, real_images=lineage.real_images, parents=lineage.parents) == lineage
    return same_images and same_origin and replace(found_header, filter=None) == header


def set_lineage(
    run: TrainedRun, manifest: Manifest, code_to_class: tuple[int, ...] | None, fraction: float | None, pair: int | None
) -> Lineage:
    """Every training image with its role: its label was used, it only told codes from classes, or it was looked at.

    The parents are the pretrained features that judged the generator, named its photographs or chose its checkpoint.
    """
    config = run.config
    generator: JSON = {
        "kind": f"finegan {config.network}",
        "config_sha256": config_sha256(config),
        "checkpoint_sha256": run.checkpoint_sha256,
        "seen_images": run.seen_images,
    }
    train = manifest.of("train")
    with_label = ("gan_train",) if config.labels == "tied" else ("code_map", UNLABELLED)
    return Lineage(
        real_images={record.sha256: with_label if record.labelled else (UNLABELLED,) for record in train},
        classes=manifest.classes,
        data_manifest_sha256=manifest.sha256,
        generator=generator,
        labels=config.labels,
        gan_data="u" if any(not record.labelled for record in train) else "s",
        fraction=fraction,
        pair=pair,
        code_to_class=code_to_class,
        parents=_imported_features(run.folder, config, manifest),
    )


def _imported_features(run_dir: Path, config: FineGANConfig, manifest: Manifest) -> tuple[JSON, ...]:
    """An entry for each use of packaged features in the training, with the hash that the run notes."""
    roles: dict[str, tuple[PackagedModel, bool]] = {
        "judge": (LITE0, config.judge == "projected"),
        "teacher": (LITE0, config.teacher == "packaged" and asks_teacher(config, manifest)),
        "clusters": (LITE0, config.clusters),
        "choice": (LITE1, config.choose_checkpoint == "kid"),
    }
    path = run_dir / "config.json"
    noted = read_json(path)
    return tuple(
        imagenet_parent(role, model, read_field(noted, path, f"{role}_sha256", str))
        for role, (model, used) in roles.items()
        if used
    )


def config_sha256(config: FineGANConfig) -> str:
    """Hash of a resolved configuration."""
    return hashlib.sha256(repr(sorted(config.to_json().items())).encode()).hexdigest()
