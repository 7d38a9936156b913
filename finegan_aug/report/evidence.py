"""Whether the synthetic images behind each row pass the firewall, checked again from the files of the experiment.

Nothing is taken on trust: the lineage is the file with the hash that the row names, the budget is the manifest that
its classifiers were trained with, and a row that lacks one of them carries no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.errors import DataError, LeakError
from finegan_aug.files import sha256_file
from finegan_aug.lineage import LINEAGE, check_lineage, read_lineage
from finegan_aug.report.rows import WITHOUT_SYNTHETIC, Row
from finegan_aug.report.sources import read_predictions
from finegan_aug.report.tables import Contrast

Key = tuple[float, str, str, int]  # fraction, model, arm, pair
FOLDERS = ("synthetic/*/*", "pools/*", "lineages/*")  # where an experiment keeps lineages


class Barred(NamedTuple):
    """Why a row may not stand behind a verdict."""

    word: str  # "leak" | "lineage unchecked"
    reason: str


def unproved(folder: Path, rows: Sequence[Row], header: Mapping[str, Any]) -> dict[Key, Barred]:
    """The rows trained on synthetic images whose lineage is unknown, or known to reach beyond their budget or to the
    images that the row was tested on.

    Args:
        folder: of the experiment.
        rows: of `parse_rows`.
        header: of rows.json; without `lineage_checked: true` no such row is proved.
    """
    mixed = [row for row in rows if row.arm not in WITHOUT_SYNTHETIC and row.alpha != 0]
    if not mixed:
        return {}
    if header.get("lineage_checked") is not True:
        why = Barred("lineage unchecked", "rows.json does not say that the lineage was checked at the mixing")
        return {_key(row): why for row in mixed}
    lineages = {sha256_file(path): path.parent for place in FOLDERS for path in folder.glob(f"{place}/{LINEAGE}")}
    budgets: dict[str, Manifest | None] = {}
    known: dict[tuple[str | None, str], Barred | None] = {}
    found = {}
    for row in mixed:
        budget = f"{row.fraction:g}-{row.draw}"
        if (row.lineage, budget) not in known:
            if budget not in budgets:
                budgets[budget] = _manifest(folder / "budgets" / f"{budget}.jsonl")
            known[row.lineage, budget] = _checked(lineages.get(row.lineage or ""), budgets[budget], row, budget)
        reason = known[row.lineage, budget] or _tested_on(folder, row, lineages[row.lineage or ""])
        if reason is not None:
            found[_key(row)] = reason
    return found


def barred(found: Sequence[Contrast], reasons: Mapping[Key, Barred]) -> list[Contrast]:
    """The contrasts, those with an unproved row without a verdict; a leak is named before anything unknown."""
    return [_barred(contrast, reasons) for contrast in found]


def _barred(contrast: Contrast, reasons: Mapping[Key, Barred]) -> Contrast:
    arms = (contrast.arm, contrast.control)
    keys = [(contrast.fraction, contrast.model, arm, pair) for arm in arms for pair in contrast.pairs]
    hits = sorted((reasons[key] for key in keys if key in reasons), key=lambda why: why.word != "leak")
    return replace(contrast, verdict=hits[0].word, barred=hits[0].reason) if hits else contrast


def _checked(lineage_dir: Path | None, budget: Manifest | None, row: Row, name: str) -> Barred | None:
    if row.lineage is None:
        return Barred("lineage unchecked", f"the images mixed into {row.arm} have no lineage")
    if lineage_dir is None:
        return Barred("lineage unchecked", f"the lineage {row.lineage[:12]} behind {row.arm} is not in the folder")
    if budget is None:
        return Barred("lineage unchecked", f"budgets/{name}.jsonl is missing or damaged")
    try:
        lineage = read_lineage(lineage_dir)
        assert lineage is not None
        check_lineage(lineage, budget)
    except LeakError as error:
        return Barred("leak", error.cause)
    except DataError:
        return Barred("lineage unchecked", f"the lineage {row.lineage[:12]} behind {row.arm} cannot be read")
    return None


def _tested_on(folder: Path, row: Row, lineage_dir: Path) -> Barred | None:
    """A leak where an image of the row's own predictions stands behind the set, whatever the budget says."""
    lineage, known = read_lineage(lineage_dir), read_predictions(folder, row)
    used = set() if lineage is None or known is None else set(known.images.tolist()) & lineage.real_images.keys()
    return Barred("leak", f"{row.arm} was tested on {len(used)} of the images behind its set") if used else None


def _manifest(path: Path) -> Manifest | None:
    """A budget as it was written. Its photographs need not be there: a published experiment holds none."""
    try:
        header, *lines = map(json.loads, path.read_bytes().splitlines())
        manifest = Manifest(path.parent, tuple(header["classes"]), tuple(ImageRecord(**line) for line in lines))
        return manifest if manifest.sha256 == header["sha256"] else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _key(row: Row) -> Key:
    return row.fraction, row.model, row.arm, row.pair
