"""Rows of an ablation -> accuracy, contrasts and per-class changes: the numbers of the report, no layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finegan_aug.report.rows import SECONDARY, Predictions, Row
from finegan_aug.verdict import Comparison, bootstrap_interval, compare, holm, mean_interval

JSON = dict[str, Any]

EXPLORATORY = (
    *(("S3", "R2"), ("S3", "R1"), ("S1", "R2"), ("S3", "S1"), ("S3", "R5"), ("S3", "D2")),
    *(("S4", "R2"), ("N0", "R2"), ("P0", "R2"), ("R2", "R1"), ("D2", "R2"), ("R5", "R2")),
    *(("S3", "D5"), ("D5", "R2"), ("D5", "R5")),
)
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Cell:
    """One arm with one model at one data fraction, over its pairs."""

    fraction: float
    model: str
    arm: str
    values: tuple[tuple[int, float], ...]  # (pair, accuracy)
    mean: float
    interval: tuple[float, float] | None
    scores: dict[str, float]  # means of the secondary scores
    steps: tuple[int, ...]
    alpha: tuple[float, ...]
    pool: tuple[int, ...]


@dataclass(frozen=True)
class Contrast:
    """Arm against control for one model at one data fraction."""

    fraction: float
    model: str
    arm: str
    control: str
    primary: bool
    pairs: tuple[int, ...]
    comparison: Comparison
    verdict: str  # helps, hurts or inconclusive; leak or lineage unchecked, where it is barred (`report.evidence`)
    bootstrap: tuple[float, float] | None  # over test images; None without predictions
    adjusted_p: float | None  # Holm, over the other contrasts of this model and fraction; None for the primary
    share_lost: float | None  # share of classes whose mean accuracy fell
    off: bool  # True if no synthetic image was mixed in: alpha = 0 in every pair
    barred: str = ""  # why it carries no verdict


@dataclass(frozen=True)
class ClassChange:
    """Mean accuracy of one class over pairs, with the control and with the arm of the primary contrast."""

    label: str
    control: float
    arm: float

    @property
    def change(self) -> float:
        return self.arm - self.control


def settings(rows: Iterable[Row]) -> list[tuple[float, str]]:
    """Every (fraction, model) there is, in order."""
    return sorted({(row.fraction, row.model) for row in rows})


def summarise(rows: Sequence[Row]) -> list[Cell]:
    """One cell for each fraction, model and arm, in the order of the rows."""
    groups: dict[tuple[float, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.fraction, row.model, row.arm), []).append(row)
    cells = []
    for (fraction, model, arm), members in groups.items():
        accuracies = [row.accuracy for row in members]
        means = {
            name: float(np.mean([row.scores[name] for row in members]))
            for name in SECONDARY
            if all(name in row.scores for row in members)
        }
        cells.append(
            Cell(
                fraction=fraction,
                model=model,
                arm=arm,
                values=tuple((row.pair, row.accuracy) for row in members),
                mean=float(np.mean(accuracies)),
                interval=mean_interval(accuracies),
                scores=means,
                steps=tuple(sorted({row.steps for row in members if row.steps is not None})),
                pool=tuple(sorted({row.pool for row in members if row.pool is not None})),
                alpha=tuple(sorted({row.alpha for row in members if row.alpha is not None})),
            )
        )
    return cells


def primary_contrast(header: JSON, fraction: float, model: str, arms: set[str]) -> tuple[str, str]:
    """(arm, control) of the primary contrast: as declared, otherwise S3 against R3, or R2 where there are no crops."""
    declared = header.get("primary")
    for entry in declared if isinstance(declared, list) else [declared]:
        if not isinstance(entry, dict) or not {"arm", "control"} <= entry.keys():
            continue
        if entry.get("fraction") in (None, fraction) and entry.get("model") in (None, model):
            return str(entry["arm"]), str(entry["control"])
    return "S3", "R3" if "R3" in arms else "R2"


def contrasts(rows: Sequence[Row], header: JSON, predictions_fn: Callable[[Row], Predictions | None]) -> list[Contrast]:
    """The primary contrast of each fraction and model, followed by its exploratory ones.

    Args:
        rows: of `parse_rows`.
        header: of rows.json; `primary` names the primary contrast.
        predictions_fn: row -> its predictions, or None where there are none.
    """
    found: list[Contrast] = []
    for fraction, model in settings(rows):
        here = [row for row in rows if (row.fraction, row.model) == (fraction, model)]
        arms = {row.arm for row in here}
        primary = primary_contrast(header, fraction, model, arms)
        others = [pair for pair in EXPLORATORY if pair != primary and set(pair) <= arms]
        wanted = ([primary] if set(primary) <= arms else []) + others
        made = [_contrast(here, arm, control, (arm, control) == primary, predictions_fn) for arm, control in wanted]
        found += _correct_for_number([contrast for contrast in made if contrast is not None])
    return found


def class_changes(rows: Sequence[Row], contrast: Contrast, classes: Sequence[str]) -> list[ClassChange]:
    """Accuracy of every class under control and arm, the largest loss first; empty without per-class values."""
    control = _per_class(rows, contrast, contrast.control)
    arm = _per_class(rows, contrast, contrast.arm)
    if control is None or arm is None or len(control) != len(arm):
        return []
    names = list(classes) if len(classes) == len(control) else [f"class {index}" for index in range(len(control))]
    changes = [ClassChange(*entry) for entry in zip(names, control, arm, strict=True) if not np.isnan(entry[1:]).any()]
    return sorted(changes, key=lambda entry: entry.change)


def _contrast(
    rows: Sequence[Row], arm: str, control: str, primary: bool, predictions_fn: Callable[[Row], Predictions | None]
) -> Contrast | None:
    first = {row.pair: row for row in rows if row.arm == control}
    second = {row.pair: row for row in rows if row.arm == arm}
    pairs = tuple(sorted(first.keys() & second.keys()))
    if not pairs:
        return None
    comparison = compare(
        control=[first[pair].accuracy for pair in pairs], arm=[second[pair].accuracy for pair in pairs]
    )
    bare = Contrast(
        fraction=rows[0].fraction,
        model=rows[0].model,
        arm=arm,
        control=control,
        primary=primary,
        pairs=pairs,
        comparison=comparison,
        verdict=comparison.verdict,
        bootstrap=_bootstrap([(predictions_fn(first[pair]), predictions_fn(second[pair])) for pair in pairs]),
        adjusted_p=None,
        share_lost=None,
        off=all(second[pair].alpha == 0 for pair in pairs),
    )
    changes = class_changes(rows, bare, ())
    lost = sum(entry.change < 0 for entry in changes) / len(changes) if changes else None
    return replace(bare, share_lost=lost)


def _correct_for_number(family: list[Contrast]) -> list[Contrast]:
    """Holm's correction over the exploratory contrasts; a claim needs an adjusted p below 0.05."""
    tested = [c for c in family if not c.primary and c.comparison.p_value is not None]
    adjusted = holm([c.comparison.p_value for c in tested if c.comparison.p_value is not None])
    values = {id(contrast): p for contrast, p in zip(tested, adjusted, strict=True)}
    corrected = []
    for contrast in family:
        p = values.get(id(contrast))
        word = contrast.verdict if p is None or p < SIGNIFICANCE else "inconclusive"
        corrected.append(replace(contrast, adjusted_p=p, verdict=word))
    return corrected


def _bootstrap(pairs: Sequence[tuple[Predictions | None, Predictions | None]]) -> tuple[float, float] | None:
    """Interval over test images; None unless both arms of every pair predicted the same images."""
    known = [(control, arm) for control, arm in pairs if control is not None and arm is not None]
    if len(known) < len(pairs):
        return None
    images = known[0][0].images
    if any(not np.array_equal(predictions.images, images) for pair in known for predictions in pair):
        return None
    return bootstrap_interval(
        control=np.stack([control.right for control, _ in known]), arm=np.stack([arm.right for _, arm in known])
    )


def _per_class(rows: Sequence[Row], contrast: Contrast, arm: str) -> list[float] | None:
    """Mean accuracy of each class over the pairs of the contrast."""
    members = [
        row.per_class
        for row in rows
        if (row.fraction, row.model, row.arm) == (contrast.fraction, contrast.model, arm) and row.pair in contrast.pairs
    ]
    if not members or len({len(values) for values in members}) != 1 or not members[0]:
        return None
    return [float(value) for value in np.mean(np.array(members, dtype=np.float64), axis=0)]
