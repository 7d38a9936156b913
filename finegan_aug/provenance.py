"""What a synthetic set says of itself: a manifest row for each image, and where the images come from."""

from __future__ import annotations

import hashlib
import warnings
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
from finegan_aug.synthetic_index import SOFT_LABELS
from finegan_aug.trained import TrainedRun
from finegan_aug.typed import read_field

IMPORTED = "imported.json"  # in a run folder: files by which others began it, on photographs that are not known here


def write_records(out_dir: Path, header: Header, rows: list[SyntheticRow], lineage: Lineage | None) -> None:
    """Writes manifest and lineage. What a filter or a hand noted of an image that is still the same stays noted.

    Of a set that has grown the new images are as yet unfiltered, which a warning says.

    Args:
        lineage: None where the origin is not known; the folder then has no lineage.json.
    """
    before = _read_before(out_dir, lineage)
    if before is None:
        (out_dir / SOFT_LABELS).unlink(missing_ok=True)
    else:
        old_header, old_rows, old_lineage = before
        if lineage is not None and old_lineage is not None:  # a filter adds roles and parents
            lineage = replace(lineage, real_images=old_lineage.real_images, parents=old_lineage.parents)
        noted = {(row.file, row.sha256): row for row in old_rows}
        rows = [_as_noted(row, noted.get((row.file, row.sha256))) for row in rows]
        if rows == old_rows:
            header = replace(header, filter=old_header.filter)
        else:
            (out_dir / SOFT_LABELS).unlink(missing_ok=True)
            if old_header.filter is not None:
                warnings.warn(f"{out_dir} has grown: filter it again, its new images are not filtered", stacklevel=2)
        if (header, rows, lineage) == (old_header, old_rows, old_lineage):
            return
    write_manifest(out_dir, header, rows)
    if lineage is not None:
        write_lineage(out_dir, lineage)


def _read_before(out_dir: Path, lineage: Lineage | None) -> tuple[Header, list[SyntheticRow], Lineage | None] | None:
    """Manifest and lineage in the folder, if they are those of the same generator and photographs."""
    try:
        before = read_lineage(out_dir)
        if (before is None) != (lineage is None) or not (out_dir / MANIFEST).exists():
            return None
        header, rows = read_rows(out_dir)
    except DataError:
        return None  # damaged, so written anew
    if before is not None and lineage is not None:
        same = before.generator["checkpoint_sha256"] == lineage.generator["checkpoint_sha256"]
        same &= all(parent in before.parents for parent in lineage.parents)
        like = replace(lineage, real_images=before.real_images, parents=before.parents, generator=before.generator)
        if not same or before != like:
            return None
    return header, rows, before


def _as_noted(row: SyntheticRow, before: SyntheticRow | None) -> SyntheticRow:
    if before is None:
        return row
    return replace(row, kept=before.kept, dropped_by=before.dropped_by, scores=before.scores)


def set_lineage(
    run: TrainedRun, manifest: Manifest, code_to_class: tuple[int, ...] | None, fraction: float | None, pair: int | None
) -> Lineage:
    """Every training image with its role: its label was used, it only told codes from classes, or it was looked at.

    Without `code_to_class` no label stands behind discovered codes, whatever labels the photographs have.

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
    with_label: tuple[str, ...] = (UNLABELLED,) if code_to_class is None else ("code_map", UNLABELLED)
    if config.labels == "tied":
        with_label = ("gan_train",)
    real_images = {record.sha256: with_label if record.labelled else (UNLABELLED,) for record in train}
    return Lineage(
        real_images=real_images,
        classes=manifest.classes,
        data_manifest_sha256=manifest.sha256,
        generator=generator,
        labels=config.labels,
        gan_data="u" if (UNLABELLED,) in real_images.values() else "s",
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
