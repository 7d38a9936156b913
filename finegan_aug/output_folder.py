"""What an output folder must not be: inside the photographs, or full of somebody's own files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import ConfigError


def ensure_apart(out: Path, manifest: Manifest) -> None:
    """Refuse an output folder inside a folder of photographs or masks: the next scan would take what it holds for more.

    Raises:
        ConfigError: naming both folders.
    """
    real = out.resolve()
    roots = (manifest.root, manifest.test_root, manifest.mask_root, manifest.test_mask_root, manifest.unlabelled_root)
    for root in roots:
        if root is not None and real.is_relative_to(root.resolve()):
            raise ConfigError(
                f"--out must not lie inside the photographs, found {out} in {root}", "choose another --out"
            )


def ensure_free(out: Path, ours: Collection[str], what: str, *, folders: bool = False) -> None:
    """Refuse a folder in which files of somebody else stand where ours would be written.

    Args:
        ours: names of our files. folders: any folder inside is in the way too.
        what: what the folder would have to hold instead, in words.

    Raises:
        ConfigError: naming what was found.
    """
    there = sorted(out.iterdir()) if out.is_dir() else []
    clashing = [path.name for path in there if path.name in ours or (folders and path.is_dir())]
    if foreign := [name for name in clashing if not name.startswith(".")]:
        raise ConfigError(f"{out} must be empty or hold {what}, found {foreign[0]}", "choose another --out")
