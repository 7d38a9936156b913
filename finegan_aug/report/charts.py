"""Charts of the report as inline SVG: the same numbers give the same bytes, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from finegan_aug.report.rows import percent
from finegan_aug.report.tables import Cell, Contrast

Series = dict[str, list[tuple[float, float]]]  # name of a line -> (x, y)

INK = "#010203"  # replaced by the colour of the page's text
VERDICT_COLORS = {"helps": "#2a9d5c", "hurts": "#d64545", "inconclusive": "#868e99"}
ARM_COLORS = {
    "R0": "#b3bac4", "R1": "#8d97a5", "R2": "#2f74c0", "R3": "#4aa8d8", "R4": "#1b4f9c", "R5": "#7b61c4",
    "S1": "#e6a23c", "S2": "#c98a1b", "S3": "#d9542b", "S4": "#b23a86", "C0": "#6f9a2e", "N0": "#a98467",
    "S*": "#ee9b80", "P0": "#4f5d52", "D2": "#3fa7a0", "D5": "#1f6f78",
}  # fmt: skip
LINE_COLORS = ("#2f74c0", "#d9542b", "#2a9d5c", "#7b61c4", "#e6a23c", "#4aa8d8", "#b23a86", "#6f9a2e")
STYLE: Any = {  # matplotlib's own type is a dictionary over 300 literal names
    "svg.hashsalt": "finegan-aug",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names are text, whatever they contain
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "legend.frameon": False,
}
MAX_POINTS = 200  # of one line; longer ones are averaged in blocks
MAX_CHART_POINTS = 12_000  # of all lines of a chart, about 250 kB of SVG


def accuracy_chart(cells: Sequence[Cell]) -> str:
    """Accuracy by data fraction, one panel for each model: dots are pairs, bars are means with their interval."""
    models = sorted({cell.model for cell in cells})
    fractions = sorted({cell.fraction for cell in cells})
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.5), layout="constrained")
        axes = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
        for axis, model in zip(axes, models, strict=True):
            for cell in (cell for cell in cells if cell.model == model):
                shift = (arms.index(cell.arm) - (len(arms) - 1) / 2) * 0.8 / len(arms)
                _accuracy_mark(axis, fractions.index(cell.fraction) + shift, cell)
            axis.set_title(model, loc="left")
            axis.set_xticks(range(len(fractions)), [f"{percent(fraction)} of the data" for fraction in fractions])
            axis.set_xlim(-0.5, len(fractions) - 0.5)
            axis.tick_params(axis="x", length=0)
            axis.grid(axis="y")
            for border in range(1, len(fractions)):
                axis.axvline(border - 0.5, color=INK, alpha=0.13, linewidth=0.7)
        axes[0].set_ylabel("test accuracy, %")
        _legend(figure, [(arm, _arm_color(arm)) for arm in arms])
        return _svg(figure, "accuracy", "Test accuracy by data fraction, arm and model")


def contrast_chart(contrasts: Sequence[Contrast]) -> str:
    """Primary contrasts on one axis: dots are pairs, thick lines intervals over pairs, thin ones over test images."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.75 + 0.42 * len(contrasts)), layout="constrained")
        axis = figure.subplots()
        for row, contrast in enumerate(contrasts):
            color = VERDICT_COLORS.get(contrast.verdict, VERDICT_COLORS["inconclusive"])
            comparison = contrast.comparison
            if contrast.bootstrap is not None:
                low, high = contrast.bootstrap
                axis.plot([100 * low, 100 * high], [row + 0.24] * 2, color=INK, alpha=0.45, linewidth=1.2)
            if comparison.interval is not None:
                low, high = comparison.interval
                axis.plot([100 * low, 100 * high], [row] * 2, color=color, linewidth=4, solid_capstyle="round")
            points = [100 * difference for difference in comparison.differences]
            axis.plot(points, [row - 0.24] * len(points), "o", color=color, alpha=0.55, markersize=4)
            axis.plot(100 * comparison.mean, row, "o", color=color, markersize=9, markeredgecolor=INK)
        axis.axvline(0, color=INK, linewidth=1)
        labels = [f"{percent(c.fraction)} · {c.model} · {c.arm} − {c.control}" for c in contrasts]  # noqa: RUF001
        axis.set_yticks(range(len(contrasts)), labels)
        axis.set_ylim(len(contrasts) - 0.45, -0.55)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("difference in test accuracy, points (right of 0: the synthetic images help)")
        return _svg(figure, "contrasts", "Differences in test accuracy for the primary contrasts")


def curves_chart(panels: dict[str, Series], *, name: str, x_label: str, columns: int = 3) -> str:
    """Small multiples, one panel for each entry, lines by name.

    Args:
        panels: title -> lines.
        name: unique on the page; part of the identifiers in the SVG.
        x_label: what x counts, with its unit.
        columns: panels in a row.
    """
    lines = sorted({line for series in panels.values() for line in series})
    colors = {line: ARM_COLORS.get(line, LINE_COLORS[index % len(LINE_COLORS)]) for index, line in enumerate(lines)}
    columns = min(columns, len(panels))
    limit = max(20, min(MAX_POINTS, MAX_CHART_POINTS // max(1, sum(map(len, panels.values())))))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE | {"font.size": 9, "axes.titlesize": 10, "axes.titleweight": "normal"}):
        figure = Figure(figsize=(9.6, 0.4 + 1.75 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (title, series) in zip(axes, panels.items(), strict=False):
            for line, points in series.items():
                x, y = thin(points, limit)
                axis.plot(x, y, color=colors[line], linewidth=1.2)
            axis.set_title(title, loc="left")
            axis.grid(axis="y")
            axis.locator_params(nbins=5)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis in axes[max(0, len(panels) - columns) : len(panels)]:
            axis.set_xlabel(x_label)
        if len(lines) > 1:
            _legend(figure, list(colors.items()))
        return _svg(figure, name, "Learning curves: " + ", ".join(panels))


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> tuple[list[float], list[float]]:
    """At most `limit` points of a line: means of consecutive blocks, so that noise shrinks but nothing is skipped."""
    if not points:
        return [], []
    values, size = np.array(points, dtype=np.float64), -(-len(points) // limit)
    blocks = [values[start : start + size] for start in range(0, len(points), size)]
    means = np.array([block.mean(axis=0) for block in blocks])
    return means[:, 0].tolist(), means[:, 1].tolist()


def _accuracy_mark(axis: Any, x: float, cell: Cell) -> None:
    color = _arm_color(cell.arm)
    if cell.interval is not None:
        low, high = (100 * max(0.0, cell.interval[0]), 100 * min(1.0, cell.interval[1]))
        axis.plot([x, x], [low, high], color=color, linewidth=2, solid_capstyle="round")
    values = [100 * value for _, value in cell.values]
    axis.plot([x] * len(values), values, "o", color=color, alpha=0.5, markersize=3.5, markeredgewidth=0)
    axis.plot([x], [100 * cell.mean], "D", color=color, markersize=6)


def _arm_color(arm: str) -> str:
    return ARM_COLORS.get(arm, LINE_COLORS[sum(arm.encode()) % len(LINE_COLORS)])


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    handles = [Line2D([], [], color=color, linewidth=4) for _, color in entries]
    names = [name if not name.startswith("_") else f" {name}" for name, _ in entries]  # "_name" would be hidden
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(entries), 8), handlelength=1.2)


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element that scales with the page and shares no identifier with another chart."""
    stream = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=empty)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # would apply to the whole page
    text = text.replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    label = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg class="chart" role="img" aria-label="{label}" ', 1).strip()
