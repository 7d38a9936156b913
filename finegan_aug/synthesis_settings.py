"""What decides a synthetic set: its settings, what they may be, and whether a folder holds a set of the same ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import ConfigError
from finegan_aug.files import read_json, write_json
from finegan_aug.lineage import LINEAGE
from finegan_aug.output_folder import ensure_apart, ensure_free
from finegan_aug.synthetic import MANIFEST, read_rows

MAX_CANVAS_PX = 4096
ImageFormat = Literal["png", "webp", "jpeg"]
Background = Literal["tied", "random"]
Placement = Literal["crop", "frame"]


@dataclass(frozen=True)
class SynthesisSettings:
    """What decides the pixels of a set, and how many images it has. Written to out_dir/synthesis.json."""

    checkpoint_sha256: str
    per_class: int
    seed: int
    image_format: ImageFormat
    background: Background
    placement: Placement
    canvas_px: int
    by_code: bool = False


def check(settings: SynthesisSettings, out_dir: Path, manifest: Manifest | None) -> None:
    """Refuse an amount or a side that cannot be, and a folder inside the photographs.

    Raises:
        ConfigError: naming it.
    """
    if settings.per_class < 1:
        raise ConfigError(f"per_class must be at least 1, found {settings.per_class}", "correct --per-class")
    if not 8 <= settings.canvas_px <= MAX_CANVAS_PX:
        cause = f"canvas_px must lie between 8 and {MAX_CANVAS_PX}, found {settings.canvas_px}"
        raise ConfigError(cause, "correct --canvas-px")
    if manifest is not None:
        ensure_apart(out_dir, manifest)


def settle(settings: SynthesisSettings, out_dir: Path) -> dict[str, str | None]:
    """Notes the settings, or compares them with those of the set that is there; only the amount may grow.

    Returns:
        SHA-256 of each file of the set that is there, by its manifest; a file that its manifest lacks is not known.

    Raises:
        ConfigError: another set, a larger one, files of another kind, or a link.
    """
    path = out_dir / "synthesis.json"
    asked = asdict(settings)
    if links := sorted(found.name for found in out_dir.iterdir() if found.is_symlink()):
        raise ConfigError(
            f"{out_dir} must hold no link, through which images would go elsewhere, found {links[0]}",
            "choose another --out",
        )
    if not path.exists():
        ensure_free(out_dir, (MANIFEST, LINEAGE), "a synthetic set", folders=True)
    else:
        before = {"by_code": False, **read_json(path)}  # sets that are older than this setting
        if type(before.get("per_class")) is int and before["per_class"] > settings.per_class:
            raise ConfigError(
                f"per_class must be at least {before['per_class']}, as many as {out_dir} holds, found "
                f"{settings.per_class}",
                "give as many, or choose another --out for a smaller set",
            )
        differing = sorted(key for key in asked if key != "per_class" and before.get(key) != asked[key])
        if differing:
            raise ConfigError(
                f"{out_dir} holds a set made with another {', '.join(differing)}", "choose another --out or remove it"
            )
    write_json(path, asked)
    return {row.file: row.sha256 for row in read_rows(out_dir)[1]} if (out_dir / MANIFEST).exists() else {}
