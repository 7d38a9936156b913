"""The guard rail: what a careful user would ship, the synthetic arm where it gained on validation, otherwise R2.

Where validation found no gain, nothing is trained for it: its classifiers are those of R2, so its difference is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from finegan_aug.report.rows import GUARDED, Row
from finegan_aug.report.sources import is_number
from finegan_aug.report.tables import Contrast
from finegan_aug.verdict import Comparison, compare

JSON = dict[str, Any]


@dataclass(frozen=True)
class Guard:
    """The choice for one model at one data fraction."""

    fraction: float
    model: str
    arm: str  # the synthetic arm that alpha was chosen for
    alpha: float  # the best share above 0 on validation, with which the arm was trained
    shipped: float  # the same, or 0: synthetic images are turned off
    accuracies: tuple[tuple[str, float], ...]  # alpha -> accuracy on validation images
    comparison: Comparison | None  # of what is shipped with R2; None where R2 or the arm has no row
    verdict: str  # "off", "not run", or that of the arm against R2

    @property
    def source(self) -> str:
        """The arm whose classifiers are shipped."""
        return self.arm if self.shipped > 0 else "R2"


def guards(rows: Sequence[Row], header: JSON, found: Sequence[Contrast]) -> list[Guard]:
    """One for each usable entry of `guard` in rows.json whose setting was run, in order of model and fraction."""
    entries = header["guard"] if isinstance(header.get("guard"), list) else []
    made = [_guard(entry, rows, found) for entry in entries if isinstance(entry, dict)]
    return sorted((guard for guard in made if guard is not None), key=lambda guard: (guard.model, guard.fraction))


def guarded_rows(rows: Sequence[Row], chosen: Sequence[Guard]) -> list[Row]:
    """The rows of what is shipped, under an arm of their own."""
    return [
        replace(row, arm=GUARDED)
        for guard in chosen
        for row in rows
        if (row.fraction, row.model, row.arm) == (guard.fraction, guard.model, guard.source)
    ]


def _guard(entry: JSON, rows: Sequence[Row], found: Sequence[Contrast]) -> Guard | None:
    fraction, alpha, shipped = (entry.get(name) for name in ("fraction", "alpha", "guarded"))
    model, arm, accuracies = str(entry.get("model")), str(entry.get("arm")), entry.get("validation_accuracy")
    here = [row for row in rows if (row.fraction, row.model) == (fraction, model)]
    if not (is_number(fraction) and is_number(alpha) and is_number(shipped) and here):
        return None
    comparison, verdict = None, "not run"
    control = [row.accuracy for row in here if row.arm == "R2"]
    if shipped == 0 and control:
        comparison, verdict = compare(control=control, arm=control), "off"
    for contrast in found:
        if shipped > 0 and (contrast.fraction, contrast.model, contrast.arm, contrast.control) == (
            fraction,
            model,
            arm,
            "R2",
        ):
            comparison, verdict = contrast.comparison, contrast.verdict
    known = accuracies.items() if isinstance(accuracies, dict) else ()
    shown = tuple((name, float(value)) for name, value in known if is_number(value))
    return Guard(float(fraction), model, arm, float(alpha), float(shipped), shown, comparison, verdict)
