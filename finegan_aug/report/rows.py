"""The rows of an ablation: one trained classifier each, read with care."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finegan_aug.typed import fits

JSON = dict[str, Any]

GUARDED = "S*"  # name of the guard-railed choice among the arms; no classifier is trained for it
ARMS = {  # order of every table and chart
    "R0": "real images, natural schedule",
    "R1": "real images, oversampled",
    "R2": "real images with strong classical augmentation",
    "R3": "R2 on crops",
    "R4": "R2 on images and crops",
    "D2": "R2 on labels that are half a teacher's",
    "R5": "R2 + pseudo-labelled remainder",
    "D5": "D2 and R5 together: every photograph under a teacher's answers",
    "S1": "R2 + synthetic images",
    "S2": "R3 + synthetic images from crops",
    "S3": "real and filtered synthetic images",
    GUARDED: "guard-railed choice: the synthetic arm where it gained on validation, otherwise its control",
    "S4": "R2 + real objects on generated backgrounds",
    "C0": "synthetic images only",
    "N0": "R2 + copies of real images (null)",
    "P0": "R2 + synthetic images with shuffled labels (poison)",
}
WITHOUT_SYNTHETIC = ("R0", "R1", "R2", "R3", "R4", "D2", "R5", "D5", "N0")  # every other arm trains on generated images
SECONDARY = ("top5", "macro_f1", "worst_class_accuracy", "ece")


class Predictions(NamedTuple):
    """Which test images a classifier named right, in the order of their sorted names."""

    images: npt.NDArray[np.str_]  # [images]
    right: npt.NDArray[np.bool_]  # [images]


@dataclass(frozen=True)
class Row:
    """One trained classifier, evaluated on the test set; shares in [0, 1], None where not measured."""

    fraction: float
    arm: str
    model: str
    pair: int
    accuracy: float
    steps: int | None = None
    alpha: float | None = None
    pool: int | None = None  # synthetic images it drew from
    scores: dict[str, float] = field(default_factory=dict)  # those of SECONDARY that were measured
    per_class: tuple[float, ...] = ()
    predictions: str | None = None  # path relative to the experiment folder
    draw: int | None = None  # number of its labelled budget among those of the fraction
    lineage: str | None = None  # SHA-256 of the lineage.json of the set it was trained with


def parse_rows(raw: object) -> tuple[list[Row], list[str]]:
    """Rows in a fixed order, and a warning for each that cannot be used or repeats another."""
    rows: dict[tuple[float, str, str, int], Row] = {}
    warnings: list[str] = []
    said: dict[str, list[str]] = {}  # what a row warns of -> which rows
    for number, entry in enumerate(raw if isinstance(raw, list) else []):
        row = _row(entry) if isinstance(entry, dict) else None
        if row is None:
            warnings.append(
                f"row {number} of rows.json has no usable fraction, arm, model, pair and accuracy: left out"
            )
            continue
        key = (row.fraction, row.model, row.arm, row.pair)
        if key in rows:
            warnings.append(f"row {number} of rows.json repeats {row.arm}, {row.model}, pair {row.pair}: left out")
            continue
        rows[key] = row
        for text in _strings(entry.get("warnings")):
            said.setdefault(text, []).append(_where(row))
    for text, where in said.items():
        warnings.append(f"{text} ({where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''})")
    ordered = sorted(rows.values(), key=lambda row: (row.fraction, row.model, arm_order(row.arm), row.pair))
    return ordered, warnings


def arm_order(arm: str) -> tuple[int, str]:
    """Sorting key: the known arms in their order, then others by name."""
    return (list(ARMS).index(arm) if arm in ARMS else len(ARMS), arm)


def percent(fraction: float) -> str:
    """0.1 -> "10 %", with a space that does not break."""
    return f"{100 * fraction:.4g}\N{NO-BREAK SPACE}%"


def _row(entry: JSON) -> Row | None:
    numbers = [_number(entry.get(name)) for name in ("fraction", "pair", "accuracy")]
    fraction, pair, accuracy = numbers
    if fraction is None or pair is None or accuracy is None or not entry.get("arm") or not entry.get("model"):
        return None
    raw_classes = entry.get("per_class_accuracy")
    steps, alpha, pool, draw = (_number(entry.get(name)) for name in ("steps", "alpha", "pool", "draw"))
    path, lineage = entry.get("predictions"), entry.get("lineage")
    return Row(
        fraction=fraction,
        arm=str(entry["arm"]),
        model=str(entry["model"]),
        pair=int(pair),
        accuracy=accuracy,
        steps=None if steps is None else int(steps),
        alpha=alpha,
        pool=None if pool is None else int(pool),
        scores={name: value for name in SECONDARY if (value := _number(entry.get(name))) is not None},
        per_class=tuple(
            math.nan if (value := _number(item)) is None else value
            for item in (raw_classes if isinstance(raw_classes, list) else [])
        ),
        predictions=path if isinstance(path, str) else None,
        draw=None if draw is None else int(draw),
        lineage=lineage if isinstance(lineage, str) else None,
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and fits(value, float) else None


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _where(row: Row) -> str:
    return f"{percent(row.fraction)}, {row.arm}, {row.model}, pair {row.pair}"
