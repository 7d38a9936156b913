"""A synthetic set of codes becomes one of classes: a teacher names its images one by one.

A generator that was trained without labels knows no class. Its codes can be audited and each be taken for a class
(`codes.py`); or a teacher that learned from the labelled photographs says of every image what it shows, and how surely.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finegan_aug.arrays import write_array
from finegan_aug.files import link_file, write_json
from finegan_aug.lineage import LINEAGE, read_lineage, write_lineage
from finegan_aug.output_folder import ensure_free
from finegan_aug.samples import IMAGE_OF_CODE
from finegan_aug.set_reader import teacher_shares
from finegan_aug.synthetic import MANIFEST, file_name, read_rows, write_manifest
from finegan_aug.synthetic_index import NAMING, SOFT_LABELS
from finegan_aug.teacher import Taught


def remove_records(out_dir: Path) -> None:
    """Remove what an earlier naming says of the images, so that none of it is taken for what the next one writes."""
    for name in (MANIFEST, LINEAGE, SOFT_LABELS):
        (out_dir / name).unlink(missing_ok=True)


def name_synthetic(
    codes: Path, out_dir: Path, taught: Taught, *, fraction: float | None = None, pair: int | None = None
) -> Path:
    """Write the set of these images, each under the class that the teacher finds likeliest.

    Files are links to those of `codes` where the file system has links. The teacher's probabilities become the soft
    labels of the set. Image n of a class is the n-th of `codes` that the teacher takes for it; the number that it has
    there stands among the scores of its row.

    Args:
        codes: a set with a class for each code (`synthesize(..., by_code=True)`).
        out_dir: folder for the named set; one that was named before is named anew.
        taught: a teacher of the classes to be named, fitted for `codes`.
        fraction, pair: draw of the labelled budget that the teacher knows, noted in the lineage.

    Returns:
        `out_dir`.

    Raises:
        ConfigError: `out_dir` holds something else.
        DataError: `codes` is no readable set.
    """
    header, rows = read_rows(codes)
    named_by = {"named_by": taught.fitted.sha256}
    if not (out_dir / NAMING).exists():
        ensure_free(out_dir, (MANIFEST, LINEAGE), "a named set", folders=True)
    shares, lineage = teacher_shares(codes, taught.fitted.logits, len(taught.classes)), read_lineage(codes)
    write_json(out_dir / NAMING, named_by)  # from here on the folder is ours, though it be broken off
    remove_records(out_dir)
    counts, named = [0] * len(taught.classes), []
    for row, label in zip(rows, shares.argmax(axis=1).tolist(), strict=True):
        name, number = taught.classes[label], counts[label]
        file = str(Path(file_name(name, label, number, "png")).with_suffix(Path(row.file).suffix))
        link_file(codes / row.file, out_dir / file)
        scores = {**row.scores, IMAGE_OF_CODE: row.image}
        named.append(replace(row, file=file, class_name=name, label=label, image=number, scores=scores))
        counts[label] += 1
    if lineage is not None:
        known = {record.sha256 for record in taught.records if record.labelled}
        lineage = taught.noted_in(lineage, "labels")
        gan_data = "s" if known.issuperset(lineage.real_images) else lineage.gan_data
        lineage = replace(lineage, classes=taught.classes, gan_data=gan_data, fraction=fraction, pair=pair)
        write_lineage(out_dir, lineage)
    write_array(out_dir / SOFT_LABELS, shares)
    header = replace(header, classes=taught.classes, made_with={**header.made_with, **named_by}, filter=None)
    write_manifest(out_dir, header, named)
    return out_dir
