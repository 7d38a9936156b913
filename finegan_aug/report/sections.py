"""Tables and curves of the sections of the page, as plain values that the template lays out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from finegan_aug.report.charts import Series
from finegan_aug.report.rows import Row, arm_order
from finegan_aug.report.sources import GanRun, is_number, series
from finegan_aug.report.tables import Contrast, class_changes
from finegan_aug.report.words import share

JSON = dict[str, Any]

METRICS = {  # name in evaluation.json -> heading with the better direction
    "fid": "FID ↓", "kid": "KID ↓", "inception_score": "IS ↑", "inception_score_real": "IS of real images",
    "precision": "precision ↑", "recall": "recall ↑", "density": "density ↑", "coverage": "coverage ↑",
    "class_consistency": "class consistency ↑", "intra_class_coverage": "coverage in class ↑",
    "intra_class_coverage_real": "the same of real images", "memorised_share": "memorised ↓",
    "nmi_geometric": "NMI (geom.) ↑", "nmi_arithmetic": "NMI (arithm.) ↑", "nmi_max": "NMI (max.) ↑",
    "clustering_accuracy": "ACC ↑", "ari": "ARI ↑",
}  # fmt: skip
CLUSTERING = ("nmi", "acc", "ari", "clustering")  # starts of the names of clustering metrics
JUDGEMENTS = ("judge", "class_consistency", "intra_class", "memorised")  # likewise of what a judge says
SMALL_SAMPLE = 2048  # images; below, FID is biased upwards
JUDGED = ("judge_accuracy", "before", "after", "mask_iou", "mask_iou_real")  # numbers of a judge's line
COUNTERS = {"seen_images", "sec", "eta_sec", "step", "steps", "epoch", "lr", "kimg"}
MAX_PANELS = 18
GAN_X = (("seen_images", 1000.0),)
CLASSIFIER_X = (("step", 1.0), ("steps", 1.0), ("epoch", 1.0), ("seen_images", 1.0))
CLASSIFIER_CURVES = {  # chart -> names of the number it may have
    "validation accuracy": ("val_accuracy", "val/accuracy", "accuracy/val", "accuracy"),
    "training loss": ("loss", "train_loss", "loss/train", "train/loss"),
}


def class_tables(rows: Sequence[Row], found: Iterable[Contrast], classes: Sequence[str]) -> list[JSON]:
    """Change of every class in each primary contrast, with a summary line."""
    tables = []
    for contrast in found:
        changes = class_changes(rows, contrast, classes) if contrast.primary else []
        if changes:
            lost = sum(entry.change < 0 for entry in changes)
            tables.append(
                {
                    "fraction": contrast.fraction,
                    "model": contrast.model,
                    "arm": contrast.arm,
                    "control": contrast.control,
                    "changes": changes,
                    "lost": lost,
                    "largest": max(abs(entry.change) for entry in changes) or 1.0,
                }
            )
    return tables


def quality(evaluation: Sequence[JSON]) -> list[JSON]:
    """Metrics of images, of a judge and of clusters, each as one line for generator, extractor, n and split."""
    groups = []
    titles = ("Image metrics", "Classes as a judge names them", "Clustering of real images")
    for group, title in enumerate(titles):
        lines = [line for line in evaluation if _group(str(line.get("metric"))) == group]
        lines = [line for line in lines if line.get("metric") and is_number(line.get("value"))]
        if not lines:
            continue
        names = sorted({str(line["metric"]) for line in lines}, key=lambda name: (_metric_rank(name), name))
        rows: dict[str, JSON] = {}
        for line in lines:
            key = {name: line.get(name) for name in ("gan", "extractor", "n_real", "n_fake", "split")}
            row = rows.setdefault(repr(key), key | {"values": [(None, (None, None))] * len(names)})
            interval = line.get("interval")
            ends = tuple(interval) if isinstance(interval, list) and len(interval) == 2 else (None, None)
            row["values"][names.index(str(line["metric"]))] = (line["value"], ends)
        counts: list[float] = [
            count for row in rows.values() for count in (row["n_real"], row["n_fake"]) if is_number(count) and count > 0
        ]
        groups.append(
            {
                "title": title,
                "metrics": names,
                "headings": [METRICS.get(name, name.replace("_", " ")) for name in names],
                "rows": list(rows.values()),
                "warnings": sorted({str(text) for line in lines for text in _list(line.get("warnings"))}),
                "small": group == 0 and min(counts, default=SMALL_SAMPLE) < SMALL_SAMPLE,
            }
        )
    return groups


def for_the_eye(group: JSON) -> JSON:
    """A group of `quality` in which rows that differ in numbers of images alone are one, the number below each value.

    A judge, say, counts other images for each of its metrics. Where one metric stands for two numbers of images, and
    where no row would go, the group keeps its columns of numbers.
    """
    rows: dict[str, JSON] = {}
    clash = False
    for row in group["rows"]:
        into = rows.setdefault(repr([row[name] for name in ("gan", "extractor", "split")]), {**row, "values": {}})
        for place, (value, ends) in enumerate(row["values"]):
            if value is not None:
                clash |= place in into["values"]
                into["values"][place] = (value, ends, row["n_fake"] or row["n_real"])
    if clash or len(rows) == len(group["rows"]):
        whole = [{**row, "values": [(*entry, None) for entry in row["values"]]} for row in group["rows"]]
        return {**group, "rows": whole, "counted": True}
    empty = (None, (None, None), None)
    shown = [
        {**row, "values": [row["values"].get(i, empty) for i in range(len(group["metrics"]))]} for row in rows.values()
    ]
    return {**group, "rows": shown, "counted": False}


def _group(metric: str) -> int:
    """0: metrics of images, 1: of a judge, 2: of clusters."""
    return 2 if metric.startswith(CLUSTERING) else int(metric.startswith(JUDGEMENTS))


def _metric_rank(name: str) -> int:
    return list(METRICS).index(name) if name in METRICS else len(METRICS)


def audit(audits: Iterable[JSON]) -> JSON:
    """What each judge saw, with its own scores on real images; class consistency by class; codes and classes."""
    judges: list[JSON] = []
    classes: list[JSON] = []
    codes: list[JSON] = []
    for raw in audits:
        here = _table(raw.get("classes"), ("gan", "class", "before", "n_before", "after", "n_after"))
        classes += here
        codes += _table(raw.get("codes"), ("gan", "code", "class", "purity", "margin", "n", "abstained", "reason"))
        before, after = _weighted_mean(here, "before", "n_before"), _weighted_mean(here, "after", "n_after")
        drawn = "judge_accuracy_on_drawings" in raw
        line = {
            "gan": raw.get("gan"),
            "judge": "networks trained on drawn truth" if drawn else raw.get("judge"),
            "judge_accuracy": raw.get("judge_accuracy_on_drawings" if drawn else "judge_accuracy"),
            "before": raw.get("class_consistency", before),
            "after": after,
            "mask_iou": raw.get("mask_iou"),
            "mask_iou_real": raw.get("segmenter_iou_on_drawings"),
        }
        numbers = {name: line[name] if is_number(line[name]) else None for name in JUDGED}
        if line["judge"] or any(value is not None for value in numbers.values()):
            judges.append(line | numbers)
    return {"judges": judges, "classes": classes, "codes": codes}


def filtering(raw: JSON) -> JSON:
    """Images kept and dropped by class and reason, with totals."""
    entries = _entries(raw.get("rows"))
    dropped = [entry["dropped"] if isinstance(entry.get("dropped"), dict) else {} for entry in entries]
    reasons = sorted({f"dropped: {reason}" for counts in dropped for reason in counts})
    rows: list[JSON] = [
        {name: entry.get(name) for name in ("gan", "class", "generated", "kept")}
        | {reason: counts.get(reason.removeprefix("dropped: "), 0) for reason in reasons}
        for entry, counts in zip(entries, dropped, strict=True)
    ]
    columns = ["generated", "kept", *reasons]
    counts = {name: [row[name] for row in rows if is_number(row[name])] for name in columns}
    totals = {name: sum(values) for name, values in counts.items()}
    return {"rows": rows, "columns": columns, "totals": totals}


def gan_curves(gans: Sequence[GanRun]) -> dict[str, Series]:
    """Every number of the generators' metrics: title -> generator -> points."""
    keys = sorted({key for gan in gans for line in gan.metrics for key in line if key not in COUNTERS})
    panels: dict[str, Series] = {}
    for key in sorted(keys, key=lambda key: (not key.startswith("loss"), key)):
        lines = {gan.name: points for gan in gans if len(points := series(gan.metrics, key, GAN_X)) > 1}
        if lines:
            panels[key] = lines
    return dict(list(panels.items())[:MAX_PANELS])


def classifier_curves(cells: dict[str, list[JSON]]) -> dict[str, dict[str, Series]]:
    """Chart -> "fraction, model" -> arm -> mean points over the pairs."""
    drawn: dict[str, dict[str, Series]] = {}
    for chart, names in CLASSIFIER_CURVES.items():
        gathered: dict[tuple[str, str], dict[str, dict[float, list[float]]]] = {}
        for cell, metrics in cells.items():
            parts = cell.split("-", 2)
            key = next((name for name in names if any(is_number(line.get(name)) for line in metrics)), None)
            if len(parts) < 3 or key is None:
                continue
            panel = (parts[2].rsplit("-", 1)[0], share(parts[0]))
            for x, y in series(metrics, key, CLASSIFIER_X):
                gathered.setdefault(panel, {}).setdefault(parts[1], {}).setdefault(x, []).append(y)
        panels = {
            f"{fraction} · {model}": {
                arm: [(x, float(np.mean(values))) for x, values in sorted(arms[arm].items())]
                for arm in sorted(arms, key=arm_order)
            }
            for (model, fraction), arms in sorted(gathered.items(), key=lambda item: item[0][0])
        }
        if panels:
            drawn[chart.replace(" ", "-")] = panels
    return drawn


def _list(raw: object) -> list[object]:
    return raw if isinstance(raw, list) else []


def _entries(raw: object) -> list[JSON]:
    return [entry for entry in _list(raw) if isinstance(entry, dict)]


def _table(raw: object, columns: Sequence[str]) -> list[JSON]:
    rows = [{name: entry.get(name) for name in columns} for entry in _entries(raw)]
    shares = ("before", "after", "purity", "margin")
    return [
        {name: value if name not in shares or is_number(value) else None for name, value in row.items()} for row in rows
    ]


def _weighted_mean(rows: Sequence[JSON], value: str, weight: str) -> float | None:
    usable = [row for row in rows if is_number(row[value]) and is_number(row[weight])]
    total = math.fsum(row[weight] for row in usable)
    return math.fsum(row[value] * row[weight] for row in usable) / total if total > 0 else None
