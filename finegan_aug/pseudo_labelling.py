"""A set for mixing made of photographs: a teacher names those without a label and has a say in the others' labels.

Arms R5 and D2 of the comparison, for a data folder of one's own: what images of a generator must be measured against.
"""

from __future__ import annotations

from pathlib import Path

import torch

from finegan_aug.arrays import write_array
from finegan_aug.config import Knowledge
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import DataError
from finegan_aug.files import write_json
from finegan_aug.lineage import LINEAGE, PHOTOGRAPHS, Lineage, write_lineage
from finegan_aug.naming import remove_records
from finegan_aug.output_folder import ensure_free
from finegan_aug.synthetic import MANIFEST, Header, write_images, write_manifest
from finegan_aug.synthetic_index import NAMING, SOFT_LABELS
from finegan_aug.teacher import Taught, square_images
from finegan_aug.teaching import answers_of_others, fit_teacher, half_own


def pseudo_label(
    manifest: Manifest,
    out_dir: Path,
    *,
    side_px: int = 80,
    teacher: Knowledge = "own",
    teacher_kimg: float = 20.0,
    seed: int = 0,
    with_labelled: bool = False,
    fraction: float | None = None,
    pair: int | None = None,
) -> Path:
    """Write the unlabelled training photographs as a set that `SyntheticMixDataset` mixes in.

    Each lies under the class that the teacher finds likeliest, with its probabilities as soft labels. The lineage names
    every photograph: those whose label taught, and those that are in the set.

    Args:
        manifest: the train split is used: what has a label teaches, what has none is named.
        out_dir: folder for the set; one that was written before is written anew.
        side_px: of the squares, cut out of the middle of each photograph.
        teacher: "own", a small network trained from scratch; "packaged", a probe on the features of an ImageNet
            network.
        teacher_kimg: length of the training of the own teacher, thousands of images.
        seed: of the own teacher.
        with_labelled: the labelled photographs come first, under their own class and soft labels that are half their
            own, half the answer of a teacher of the others (`answers_of_others`).
        fraction, pair: draw of the labelled budget that the teacher knows, noted in the lineage.

    Returns:
        `out_dir`.

    Raises:
        ConfigError: `out_dir` holds something else, or the packaged teacher is not installed.
        DataError: no photograph is without a label, and `with_labelled` is off.
    """
    known, unknown = manifest.of("train", labelled=True), manifest.of("train", labelled=False)
    if not unknown and not with_labelled:
        raise DataError(
            "there must be training photographs without a label, found none",
            "give --unlabelled-folder, or a --fraction below 1, or take those --with-labelled",
        )
    if not (out_dir / NAMING).exists():
        ensure_free(out_dir, (MANIFEST, LINEAGE), "a set of named photographs", folders=True)
    images = square_images(manifest, [*known, *unknown], side_px)
    labels = torch.tensor([record.label for record in known] + [-1] * len(unknown))
    classes = len(manifest.classes)
    fitted = fit_teacher(teacher, images, labels, num_classes=classes, seed=seed, kimg=teacher_kimg)
    shown, own = images[len(known) :], labels[: len(known)]
    shares = fitted.logits(shown).softmax(dim=1).float().cpu() if unknown else torch.zeros(0, classes)
    named = shares.argmax(dim=1).tolist()
    if with_labelled:
        seen = images[: len(known)]
        others = answers_of_others(teacher, seen, own, num_classes=classes, seed=seed, kimg=teacher_kimg)
        shown, named = images, own.tolist() + named
        shares = torch.cat([half_own(own, others), shares])
    named_by = {"named_by": fitted.sha256}
    write_json(out_dir / NAMING, named_by)  # from here on the folder is ours, though it be broken off
    remove_records(out_dir)
    taught = Taught(fitted, manifest.classes, [*known, *unknown], images, teacher == "packaged")
    write_lineage(out_dir, taught.noted_in(_nobody(manifest, fitted.sha256, fraction, pair), "labels"))
    rows = write_images(out_dir, manifest.classes, shown.permute(0, 2, 3, 1).numpy(), named)
    write_array(out_dir / SOFT_LABELS, shares.numpy())
    write_manifest(out_dir, Header(manifest.classes, side_px, "png", named_by), rows)
    return out_dir


def _nobody(manifest: Manifest, teacher_sha256: str, fraction: float | None, pair: int | None) -> Lineage:
    """A lineage in which no photograph has had a part yet; the teacher stands where a generator would."""
    return Lineage(
        real_images={},
        classes=manifest.classes,
        data_manifest_sha256=manifest.sha256,
        generator={"kind": PHOTOGRAPHS, "checkpoint_sha256": teacher_sha256},
        labels="discovered",
        gan_data="u",
        fraction=fraction,
        pair=pair,
    )
