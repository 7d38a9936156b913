"""Drawn pictures for tests of the data: any two numbers give pictures that no hash takes for copies of each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, width: int = 48, height: int = 36) -> Image.Image:
    """Smooth random colours, another picture for each number, much like a blurred photograph."""
    rng = np.random.default_rng(number)
    cells = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return cells.resize((width, height), Image.Resampling.BICUBIC)


def folder(root: Path, counts: dict[str, int], first: int = 0, size: tuple[int, int] = (48, 36)) -> Path:
    """root/CLASS/0000.png ..., numbered through all classes; `size` is width and height in pixels."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(first, first + count):
            picture(number, *size).save(root / name / f"{number:04d}.png")
        first += count
    return root
