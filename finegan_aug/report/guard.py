"""The guard rail: what a careful user would ship, the synthetic arm where it gained on validation, else its control.

Where validation found no gain, nothing is trained for it: its classifiers are the control's, so its difference is 0.
The control is R1 or R2, whichever was better on validation; R2 where that was not compared.
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
    control: str  # R1 or R2, shipped where alpha gained nothing over it
    control_accuracy: float | None  # on validation images
    comparison: Comparison | None  # of what is shipped with the control; None where that or the arm has no row
    verdict: str  # "off", "not run", or that of the arm against the control

    @property
    def source(self) -> str:
        """The arm whose classifiers are shipped."""
        return self.arm if self.shipped > 0 else self.control


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
    control = "R1" if entry.get("control") == "R1" else "R2"
    scores = [row.accuracy for row in here if row.arm == control]
    if shipped == 0 and scores:
        comparison, verdict = compare(control=scores, arm=scores), "off"
    for contrast in found:
        if shipped > 0 and (contrast.fraction, contrast.model, contrast.arm, contrast.control) == (
            fraction,
            model,
            arm,
            control,
        ):
            comparison, verdict = contrast.comparison, contrast.verdict
    known = accuracies.items() if isinstance(accuracies, dict) else ()
    shown = tuple((name, float(value)) for name, value in known if is_number(value))
    without = entry.get("control_accuracy", dict(shown).get("0"))  # experiments of before compared with R2 alone
    without = float(without) if is_number(without) else None
    share = float(shipped)
    return Guard(float(fraction), model, arm, float(alpha), share, shown, control, without, comparison, verdict)
