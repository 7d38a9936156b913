"""The page: sections put together from an experiment, rendered without any script, beside JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from finegan_aug.errors import DataError
from finegan_aug.files import write_bytes, write_json
from finegan_aug.report import charts, sections, words
from finegan_aug.report.csv_tables import csv_bytes, csv_tables
from finegan_aug.report.evidence import barred, unproved
from finegan_aug.report.guard import guarded_rows, guards
from finegan_aug.report.rows import ARMS, Row, arm_order, parse_rows, percent
from finegan_aug.report.sources import (
    Experiment,
    GanRun,
    Picture,
    clean,
    encode_picture,
    picture_files,
    read_experiment,
    read_predictions,
    without_private_paths,
)
from finegan_aug.report.tables import Contrast, contrasts, summarise

JSON = dict[str, Any]
IMAGE_BUDGET_BYTES = 3_200_000  # of all pictures before base64, so that the page stays below 5 MB


def write_report(folder: Path | str, out_dir: Path | str | None = None, *, without_real_images: bool = False) -> Path:
    """Write report.html, report.json and tables/*.csv from an experiment folder (layout: `finegan_aug.report`).

    The page is one file without scripts that asks for nothing from any network; the same folder gives the same bytes.

    Args:
        folder: an experiment folder, or a run folder of the generator.
        out_dir: where to write; the folder itself by default.
        without_real_images: leave real photographs out, for publishing.

    Returns:
        Path of report.html.

    Raises:
        DataError: the folder holds nothing to report.
        StorageError: the files cannot be written.
    """
    folder = Path(folder)
    out = folder if out_dir is None else Path(out_dir)
    experiment = read_experiment(folder)
    rows, warnings = parse_rows(experiment.ablation.get("rows"))
    if not rows and not experiment.gans and not experiment.evaluation and not experiment.header:
        raise DataError(
            f"{folder} must hold experiment.json, rows.json, evaluation.json or gan/, found none of them",
            "name the folder of a finished experiment",
        )
    content = _content(experiment, rows, warnings)
    gallery, unreadable = _gallery(experiment.gans, without_real_images)
    content["warnings"] += unreadable
    html = _render(content, _charts(experiment, rows, content), gallery)
    for name, table in csv_tables(content, rows).items():
        write_bytes(out / "tables" / f"{name}.csv", csv_bytes(table))
    write_json(out / "report.json", clean(json.loads(json.dumps(content, default=asdict))))
    write_bytes(out / "report.html", html.encode("utf-8", "replace"))
    return out / "report.html"


def _content(experiment: Experiment, rows: list[Row], warnings: list[str]) -> JSON:
    """Everything the page says, as report.json holds it."""
    header, ablation = experiment.header, experiment.ablation
    data: JSON = header["data"] if isinstance(header.get("data"), dict) else {}
    classes = [str(name) for name in data["classes"]] if isinstance(data.get("classes"), list) else []
    found = contrasts(rows, ablation, lambda row: read_predictions(experiment.folder, row))
    found = barred(found, unproved(experiment.folder, rows, ablation))
    chosen = guards(rows, ablation, found)
    cells = summarise([*rows, *guarded_rows(rows, chosen)])
    cells.sort(key=lambda cell: (cell.fraction, cell.model, arm_order(cell.arm)))
    headlines = words.headlines(rows, found, ablation, chosen)
    return {
        "title": str(header.get("title") or "Do the synthetic images help?"),
        "headlines": headlines,
        "lead": words.lead(headlines),
        "warnings": words.warnings(experiment, rows, found) + warnings,
        "notes": words.notes(rows, ablation, data),
        "facts": words.facts(without_private_paths(data), header, rows, ablation),
        "classes": classes,
        "arms": [(arm, ARMS.get(arm, "")) for arm in sorted({cell.arm for cell in cells}, key=arm_order)],
        "cells": cells,
        "contrasts": found,
        "guards": chosen,
        "class_tables": sections.class_tables(rows, found, classes),
        "quality": sections.quality(experiment.evaluation),
        "audit": sections.audit(experiment.audits),
        "filter": sections.filtering(experiment.filtering),
        "commands": [without_private_paths(text) for text in words.commands(header)],
        "configs": _configs(experiment),
    }


def _configs(experiment: Experiment) -> list[tuple[str, str]]:
    named = [("experiment", experiment.header.get("config"))]
    named += [(f"generator {gan.name}", gan.config) for gan in experiment.gans]
    return [
        (name, json.dumps(without_private_paths(config), indent=2, ensure_ascii=False))
        for name, config in named
        if config
    ]


def _charts(experiment: Experiment, rows: list[Row], content: JSON) -> dict[str, str]:
    """Name -> SVG of every chart there are numbers for."""
    found: list[Contrast] = [contrast for contrast in content["contrasts"] if contrast.primary]
    made = {}
    if rows:
        made["accuracy"] = charts.accuracy_chart(content["cells"])
    if found:
        made["contrasts"] = charts.contrast_chart(
            sorted(found, key=lambda contrast: (contrast.model, contrast.fraction))
        )
    gan_panels = sections.gan_curves(experiment.gans)
    if gan_panels:
        made["gan"] = charts.curves_chart(gan_panels, name="gan", x_label="images seen, thousands")
    for name, panels in sections.classifier_curves(experiment.cells).items():
        made[f"classifier-{name}"] = charts.curves_chart(panels, name=f"classifier-{name}", x_label="steps")
    return made


def _gallery(gans: Sequence[GanRun], without_real_images: bool) -> tuple[list[tuple[str, list[Picture]]], list[str]]:
    """Pictures by generator, all within the budget; and a warning for each that cannot be read."""
    files = {gan.name: picture_files(gan, without_real_images=without_real_images) for gan in gans}
    limit = IMAGE_BUDGET_BYTES // max(1, sum(map(len, files.values())))
    gallery, warnings = [], []
    for name, paths in files.items():
        pictures = []
        for path in paths:
            try:
                pictures.append(encode_picture(path, limit))
            except OSError:
                warnings.append(clean(f"{name}/{path.name} is no readable PNG and is left out"))
        if pictures:
            gallery.append((name, pictures))
    return gallery, warnings


def _render(content: JSON, svgs: dict[str, str], gallery: list[tuple[str, list[Picture]]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("finegan_aug.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pct": lambda share: f"{100 * share:.1f}",
        "signed": words.signed,
        "number": words.number,
        "percent": percent,
        "for_the_eye": sections.for_the_eye,
    }
    # The one place where markup is trusted: matplotlib escapes every text it puts into an SVG.
    drawn = {name: Markup(svg) for name, svg in svgs.items()}
    return environment.get_template("report.html.j2").render(**content, charts=drawn, gallery=gallery)
