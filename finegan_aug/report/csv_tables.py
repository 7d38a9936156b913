"""The tables of the report as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from finegan_aug.report.rows import SECONDARY, Row
from finegan_aug.report.tables import Contrast

JSON = dict[str, Any]
Table = list[list[object]]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_bytes(table: Sequence[Sequence[object]]) -> bytes:
    """CSV with numbers as numbers and text that no spreadsheet takes for a formula."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[_cell(value) for value in line] for line in table])
    return stream.getvalue().encode("utf-8", "replace")


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return f"'{text}" if text.lstrip(" \n").startswith(FORMULA_STARTS) else text


def csv_tables(content: JSON, rows: Sequence[Row]) -> dict[str, Table]:
    """Name -> table with its header line, for every part of the report that has any line."""
    runs: Table = [["fraction", "model", "arm", "pair", "accuracy", *SECONDARY, "steps", "alpha", "pool"]]
    runs += [
        [r.fraction, r.model, r.arm, r.pair, r.accuracy, *map(r.scores.get, SECONDARY), r.steps, r.alpha, r.pool]
        for r in rows
    ]
    accuracy: Table = [["fraction", "model", "arm", "pairs", "mean", "low", "high"]]
    accuracy += [
        [c.fraction, c.model, c.arm, len(c.values), c.mean, *(c.interval or (None, None))] for c in content["cells"]
    ]
    tables = {"runs": runs, "accuracy": accuracy, "contrasts": _contrast_table(content["contrasts"])}
    tables["guard"] = [["fraction", "model", "arm", "alpha", "shipped", "control", "verdict", "difference"]]
    tables["guard"] += [
        [g.fraction, g.model, g.arm, g.alpha, g.shipped, g.control, g.verdict, getattr(g.comparison, "mean", None)]
        for g in content["guards"]
    ]
    tables["classes"] = [["fraction", "model", "class", "control", "arm", "change"]]
    tables["classes"] += [
        [table["fraction"], table["model"], entry.label, entry.control, entry.arm, entry.change]
        for table in content["class_tables"]
        for entry in table["changes"]
    ]
    columns: list[object] = ["generator", "extractor", "n_real", "n_fake", "split", "metric", "value", "low", "high"]
    tables["quality"] = [columns, *_quality_lines(content["quality"])]
    for name, part, entries in (
        ("audit_judges", "audit", "judges"),
        ("audit_classes", "audit", "classes"),
        ("audit_codes", "audit", "codes"),
        ("filter", "filter", "rows"),
    ):
        lines = content[part][entries]
        if lines:
            tables[name] = [list(lines[0]), *([line[key] for key in lines[0]] for line in lines)]
    return {name: table for name, table in tables.items() if len(table) > 1}


def _contrast_table(found: Iterable[Contrast]) -> Table:
    head = ["fraction", "model", "arm", "control", "primary", "verdict", "pairs", "mean", "low", "high"]
    table: Table = [[*head, "images_low", "images_high", "holm_p", "share_of_classes_lost"]]
    for c in found:
        line: list[object] = [c.fraction, c.model, c.arm, c.control, c.primary, c.verdict, len(c.pairs)]
        interval = c.comparison.interval or (None, None)
        line += [c.comparison.mean, *interval, *(c.bootstrap or (None, None)), c.adjusted_p, c.share_lost]
        table.append(line)
    return table


def _quality_lines(groups: Iterable[JSON]) -> Table:
    return [
        [*(row[key] for key in ("gan", "extractor", "n_real", "n_fake", "split")), metric, value, *interval]
        for group in groups
        for row in group["rows"]
        for metric, (value, interval) in zip(group["metrics"], row["values"], strict=True)
        if value is not None
    ]
