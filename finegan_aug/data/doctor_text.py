"""What `finegan-aug doctor` found, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from finegan_aug.data.doctor import DoctorReport
from finegan_aug.data.outside import printable

_MAX_ROWS = 40


def format_report(report: DoctorReport) -> str:
    """The report as text for a terminal, at most 40 rows a table."""
    lines = [f"{printable(report.data)}: {report.images} usable images of {report.files}, {len(report.rows)} classes"]
    if report.kinds:
        lines.append("stored as " + ", ".join(f"{kind} {count}" for kind, count in report.kinds.items()))
    table = [("class", "train", "test", "side px", "boxes", "masks")]
    for row in report.rows:
        sides = f"{row.shortest_px}-{row.longest_px}"
        table.append((printable(row.name), str(row.train), str(row.test), sides, str(row.boxes), str(row.masks)))
    lines += ["", *_table(table)]
    table = [("background patches", "px", "valid", "crops without", "per image", "images")]
    for share in report.background:
        per_image = f"{share.valid * share.units:.0f} of {share.units}"
        cells = (f"{share.valid:.1%}", f"{share.without:.1%}", per_image, str(share.images))
        table.append((share.choice, str(share.resolution_px), *cells))
    lines += ["", *_table(table), "", f"codes: {report.codes}"]
    if report.unlabelled:
        lines.append(f"unlabelled: {report.unlabelled} training photographs of no known class")
    lines.append(f"duplicates: {len(report.duplicates)} groups among the training images")
    lines += [f"note: {printable(note)}" for note in report.notes[:_MAX_ROWS]]
    warnings = len(report.problems) - report.errors
    lines += ["", f"{report.errors} errors, {warnings} warnings", *map(str, report.problems[:_MAX_ROWS])]
    if len(report.problems) > _MAX_ROWS:
        lines.append(f"... {len(report.problems) - _MAX_ROWS} more")
    return "\n".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns aligned: the first to the left, the others to the right."""
    shown = rows[: _MAX_ROWS + 1]
    widths = [max(len(row[column]) for row in shown) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in shown
    ]
    return lines if len(shown) == len(rows) else [*lines, f"... {len(rows) - len(shown)} more"]
