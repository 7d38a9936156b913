"""What test_load.py starts: a folder of many small images, through every step up to a training that goes on.

    many_images.py FOLDER COUNT

Prints one JSON object: of each step the seconds, the growth of memory at its highest, MiB, and how many images Pillow
opened.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_runs import tiny_config

SIDE_PX, CLASSES, BARE = 24, 20, 2000


def draw(root: Path, count: int) -> None:
    """COUNT pictures of coarse random colours; so many neighbours of one colour give hashes with much in common."""
    rng = np.random.Generator(np.random.Philox(5))
    for label in range(CLASSES):
        (root / f"class {label:02d}").mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        file = root / f"class {number % CLASSES:02d}" / f"{number:06d}.png"
        coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST).save(file, compress_level=1)


def memory_mib(field: str) -> float:
    """VmRSS (now) or VmHWM (the highest) of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main(folder: Path, count: int) -> None:
    from finegan_aug.data.budget import budget
    from finegan_aug.data.folder import load_data, scan, write_manifest
    from finegan_aug.training import train

    steps: dict[str, dict[str, float]] = {}
    opened, open_image = [0], Image.open

    def counting(*given: Any, **more: Any) -> Image.Image:
        opened[0] += 1
        return open_image(*given, **more)

    Image.open = counting

    def step(name: str, work: Callable[[], Any]) -> Any:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the highest begins anew
        opened[0], before, started = 0, memory_mib("VmRSS"), time.perf_counter()
        result = work()
        sec = time.perf_counter() - started
        steps[name] = {"sec": sec, "mib": memory_mib("VmHWM") - before, "opened": opened[0]}
        return result

    root, stored = folder / "photographs", folder / "manifest.jsonl"
    draw(root, count)
    first = sorted(root.rglob("*.png"))[:BARE]

    def bare() -> None:
        for file in first:
            np.asarray(Image.open(file).convert("RGB"))

    step("bare", bare)
    scanned = step("scan", lambda: scan(root))
    step("write", lambda: write_manifest(scanned, stored))
    read = step("read", lambda: load_data(stored))
    assert read == scanned
    step("budget", lambda: budget(read, 0.5, pair=0, unlabelled="keep"))

    def training(steps: int) -> Path:
        config = tiny_config(boxes="none", batch_size=2, total_kimg=0.002 * steps, checkpoint_kimg=0.002, grid_kimg=1)
        return train(config, read, folder / "run")

    step("train", lambda: training(2))
    step("resume", lambda: training(3))
    step("bare again", bare)
    print(json.dumps(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
