"""What an experiment folder holds, read with care: a broken part becomes a warning on the page, never a crash."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from PIL import Image

from finegan_aug.report.rows import Predictions, Row
from finegan_aug.typed import fits

JSON = dict[str, Any]

CAPTIONS = {  # by the start of the file's name, in the order of the page
    "p_c_z": "Codes against noise: a row is one child code, three rows share a parent; a column is one noise",
    "c_by_p": "Child codes against parent codes: colour and pattern stay along a row, the shape along a column",
    "foreground_swap": "Foreground swap: the background stays, parent and child code change",
    "background_swap": "Background swap: the object stays, the background code changes",
    "shape_swap": "Shape swap: colour and pattern stay, the parent code changes",
    "appearance_swap": "Appearance swap: the shape stays, the child code changes",
    "stages": "The stages, left to right: background, parent mask, parent, child mask, child",
    "codes": "Rows are codes, columns share the noise: what a code means",
    "fakes": "Generated images, fixed noise",
    "failures": "Generated images that the judge takes for another class than the one they were made for, by class",
    "nearest": "Generated images, each beside the real training image nearest to it: copies would show here",
    "reals": "Real training images",
}
REAL_PHOTOGRAPHS = ("reals", "nearest")  # starts of the names of grids that show real images
CANDIDATE_SIDES_PX = (1600, 1100, 800, 560, 400, 280)


@dataclass(frozen=True)
class Picture:
    """An image as it stands in the page."""

    name: str
    caption: str
    uri: str  # data:image/...
    width_px: int  # of the file, before any reduction
    height_px: int

    @property
    def shown_px(self) -> int:
        """Width on the page: small grids are enlarged up to three times, as long as they fit a screen."""
        return round(self.width_px * max(1.0, min(3.0, 640 / self.height_px)))


@dataclass(frozen=True)
class GanRun:
    """A run folder of the generator."""

    name: str
    folder: Path
    config: JSON
    metrics: list[JSON]


@dataclass(frozen=True)
class Experiment:
    """Everything read from an experiment folder; empty where a part is missing."""

    folder: Path
    header: JSON
    ablation: JSON
    evaluation: list[JSON]
    audits: list[JSON]  # of the experiment, or one for each generator and each judge
    filtering: JSON
    gans: list[GanRun]
    cells: dict[str, list[JSON]]  # name of the cell -> its metrics
    warnings: list[str]


def read_experiment(folder: Path) -> Experiment:
    """Read all parts that exist."""
    warnings: list[str] = []

    def load(name: str) -> JSON:
        content = load_json(folder / name, warnings, folder)
        return content if isinstance(content, dict) else {}

    gan_folders = sorted(path for path in (folder / "gan").glob("*") if path.is_dir())
    if not gan_folders and any(folder.glob("fakes_*.png")):
        gan_folders = [folder]
    gans, audits = [], [load("audit.json")]
    evaluation = _rows(load_json(folder / "evaluation.json", warnings, folder))
    for path in gan_folders:
        config = load_json(path / "config.json", warnings, folder)
        name = clean(path.name)
        gans.append(
            GanRun(
                name,
                path,
                config if isinstance(config, dict) else {},
                load_lines(path / "metrics.jsonl", warnings, folder),
            )
        )
        if path != folder:
            rows = _rows(load_json(path / "evaluation.json", warnings, folder))
            evaluation += [row for row in ({"gan": name} | row for row in rows) if row not in evaluation]
            audits.append({} if audits[0] else _of_gan(name, load(f"gan/{path.name}/audit.json")))
        quality = load_json(path / "quality.json", warnings, folder)
        audits.append(_of_gan(name, quality) if isinstance(quality, dict) else {})
    return Experiment(
        folder=folder,
        header=load("experiment.json"),
        ablation=load("rows.json"),
        evaluation=evaluation,
        audits=[audit for audit in audits if audit],
        filtering=load("filter.json"),
        gans=gans,
        cells={
            clean(path.parent.name): load_lines(path, warnings, folder)
            for path in sorted(folder.glob("cells/*/metrics.jsonl"))
        },
        warnings=warnings,
    )


def load_json(path: Path, warnings: list[str], folder: Path) -> object:
    """Content of a JSON file; None if it is missing, or if it is broken, which adds a warning."""
    if not path.is_file():
        return None
    try:
        return clean(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        warnings.append(clean(f"{path.relative_to(folder)} cannot be read and is left out: {error}"))
        return None


def load_lines(path: Path, warnings: list[str], folder: Path) -> list[JSON]:
    """Objects of a JSON-lines file; a last line that was cut off is normal, others that do not parse are counted."""
    if not path.is_file():
        return []
    objects, broken = [], 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines):
        try:
            entry = clean(json.loads(line))
        except (ValueError, RecursionError):
            broken += number < len(lines) - 1
            continue
        if isinstance(entry, dict):
            objects.append(entry)
    if broken:
        warnings.append(clean(f"{broken} lines of {path.relative_to(folder)} cannot be read and are left out"))
    return objects


def clean(value: Any) -> Any:
    """The same JSON value, fit for any output: no lone surrogates or control characters, no NaN or infinity."""
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode("utf-8")
        return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", text)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list) else value


def without_private_paths(value: Any) -> Any:
    """The same JSON value with paths outside the project cut to their last part: /home/ann/birds -> …/birds."""
    if isinstance(value, str):
        return re.sub(r"(^|[\s='\"(,])((?:~|\.\.|[A-Za-z]:)?[\\/][^\s'\",)]+)", _last_part, value)
    if isinstance(value, dict):
        return {without_private_paths(key): without_private_paths(item) for key, item in value.items()}
    return [without_private_paths(item) for item in value] if isinstance(value, list) else value


def read_predictions(folder: Path, row: Row) -> Predictions | None:
    """Predictions of a row; None without a file inside the experiment folder that can be read."""
    if row.predictions is None:
        return None
    path = (folder / row.predictions).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels, logits, images = (arrays[name] for name in ("labels", "logits", "image"))
            right, order = logits.argmax(axis=1) == labels, np.argsort(images, kind="stable")
    except Exception:  # a file of another kind or a damaged one fails with whatever it provokes; nothing in it is run
        return None
    whole = labels.ndim == 1 and right.shape == labels.shape == images.shape
    return Predictions(images[order], right[order]) if whole else None


def picture_files(gan: GanRun, *, without_real_images: bool) -> list[Path]:
    """The figures of a generator, then its newest grid of each kind; real photographs only where allowed."""
    newest: dict[str, Path] = {}
    for path in sorted(gan.folder.glob("*.png"), key=_number_in_name):
        newest[path.name.split("_")[0].removesuffix(".png")] = path
    files = [*sorted((gan.folder / "figures").glob("*.png")), *newest.values()]
    if without_real_images:
        files = [path for path in files if not path.name.startswith(REAL_PHOTOGRAPHS)]
    return sorted(files, key=lambda path: (_caption_rank(path.name), path.name))


def encode_picture(path: Path, limit_bytes: int) -> Picture:
    """The image as PNG if that is small enough, otherwise as WebP of falling size.

    Raises:
        OSError: the file is no readable PNG.
    """
    if not path.is_file():  # a named pipe would be waited for without end
        raise OSError(f"{path.name} is not a file")
    try:
        with Image.open(path, formats=["PNG"]) as file:
            image = file.convert("RGB")
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from error
    size = image.size
    kind, data = "png", _encoded(image, "PNG")
    for side in CANDIDATE_SIDES_PX:
        if len(data) <= limit_bytes:
            break
        smaller = image.copy()
        smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
        kind, data = "webp", _encoded(smaller, "WEBP")
    rank = _caption_rank(path.name)
    known = list(CAPTIONS.values())
    caption = known[rank] if rank < len(known) else path.stem.replace("_", " ")
    number = re.search(r"_(\d+)\.png$", path.name)
    if number:
        caption += f"; after {int(number.group(1))} kimg"
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Picture(clean(path.name), clean(caption), uri, *size)


def series(metrics: Sequence[JSON], key: str, x_keys: Sequence[tuple[str, float]]) -> list[tuple[float, float]]:
    """Points (x, value) of one number of a metrics file.

    Args:
        metrics: lines of the file.
        key: name of the number.
        x_keys: names of the counter and its divisor; the first that a line has is used.
    """
    points = []
    for line in metrics:
        x = next((line[name] / unit for name, unit in x_keys if is_number(line.get(name))), None)
        if x is not None and is_number(line.get(key)):
            points.append((float(x), float(line[key])))
    return points


def is_number(value: object) -> TypeGuard[float]:
    """True for a finite number that is not a truth value."""
    return fits(value, float)


def _rows(content: object) -> list[JSON]:
    rows = content.get("rows") if isinstance(content, dict) else content
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _of_gan(name: str, audit: JSON) -> JSON:
    """The audit with the generator's name on it and on each row of its tables; empty stays empty."""
    tables = {
        key: [{"gan": name} | row for row in audit[key] if isinstance(row, dict)]
        for key in ("classes", "codes")
        if isinstance(audit.get(key), list)
    }
    return {"gan": name} | audit | tables if audit else {}


def _last_part(match: re.Match[str]) -> str:
    name = match.group(2).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return f"{match.group(1)}…/{name}"


def _number_in_name(path: Path) -> tuple[int, str]:
    number = re.search(r"_(\d+)\.png$", path.name)
    return (int(number.group(1)) if number else -1, path.name)


def _caption_rank(name: str) -> int:
    starts = list(CAPTIONS)
    return next((index for index, start in enumerate(starts) if name.startswith(start)), len(starts))


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **({"optimize": True} if kind == "PNG" else {"quality": 88, "method": 4}))
    return stream.getvalue()
