"""Cost of mixing: time per item against the wrapped data set alone, and opening a million synthetic entries.

    python -m benchmarks.mixing --data photos/train --json mixing.json

The synthetic set holds copies of the real files on the same disk, and both sides run the same transform.
Runs of both sides alternate, and time is that of this thread's processor, so that a busy neighbour disturbs both
alike. Goals: ratio at most 1.05; a million entries in under 2 s and 200 MiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from finegan_aug import SyntheticMixDataset
from finegan_aug.randomness import permutation, seed_for
from finegan_aug.synthetic import Header, SyntheticRow, write_manifest
from finegan_aug.synthetic_index import open_index

ENTRIES = 1_000_000


def transform(side_px: int) -> v2.Transform:
    """The usual training transform, as uint8 crops into a normalised tensor."""
    steps = [v2.RandomResizedCrop(side_px, antialias=True), v2.RandomHorizontalFlip(), v2.ToImage()]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])


def alternating_ratio(reference: Callable[[int], object], ours: Callable[[int], object], runs: int) -> dict[str, float]:
    """Median over `runs` of (time of ours / time of the reference right before or after it)."""
    seconds: list[tuple[float, float]] = []
    for run in range(runs):
        start = time.thread_time()
        # Neither reads what the other has just brought into the processor's cache.
        (ours if run % 2 else reference)(2 * run)
        middle = time.thread_time()
        (reference if run % 2 else ours)(2 * run + 1)
        first, second = middle - start, time.thread_time() - middle
        seconds.append((second, first) if run % 2 else (first, second))
    quartiles = statistics.quantiles((ours_sec / reference_sec for reference_sec, ours_sec in seconds), n=4)
    return {
        "ratio_median": quartiles[1],
        "ratio_quartile_1": quartiles[0],
        "ratio_quartile_3": quartiles[2],
        "reference_sec": statistics.median(a for a, _ in seconds),
        "ours_sec": statistics.median(b for _, b in seconds),
    }


def per_item(data: Path, *, side_px: int, items: int, runs: int, alpha: float) -> dict[str, Any]:
    """Ratio of time per item, item by item and through a DataLoader without workers."""
    with tempfile.TemporaryDirectory() as folder:
        real, synthetic = (shutil.copytree(data, Path(folder) / name) for name in ("real", "synthetic"))
        steps = transform(side_px)
        plain = ImageFolder(real, transform=steps)
        mixed = SyntheticMixDataset(ImageFolder(real), synthetic, alpha=alpha, transform=steps)
        order = permutation(seed_for(0, "benchmark"), len(plain))

        def each(dataset: Any, run: int) -> None:
            for index in chunk(run):
                dataset[index]

        def loaded(dataset: Any, run: int) -> None:
            for _ in DataLoader(Subset(dataset, chunk(run)), batch_size=32):
                pass

        def chunk(run: int) -> list[int]:
            return [int(order[n % len(order)]) for n in range(run * items, run * items + items)]

        found: dict[str, Any] = {"alpha": alpha, "items": items, "side_px": side_px, "runs": runs}
        for name, read in (("item", each), ("loader", loaded)):
            read(plain, 0), read(mixed, 0)
            found[name] = alternating_ratio(partial(read, plain), partial(read, mixed), runs)
        return found


def resident_mib() -> float:
    """Memory of this process that lies in RAM."""
    fields = Path("/proc/self/status").read_text(encoding="utf-8").split()
    return int(fields[fields.index("VmRSS:") + 1]) / 1024


def million() -> dict[str, float]:
    """Seconds and memory to open a million entries and sort them into classes."""
    with tempfile.TemporaryDirectory() as folder:
        names = tuple(f"class_{n}" for n in range(200))
        rows = (
            SyntheticRow(
                f"{names[n % 200]}/{n // 200:08d}.png", names[n % 200], n % 200, n // 200, n % 400, n % 50, n % 400, n,
                "a" * 64, {"teacher_confidence": 0.5},
            )
            for n in range(ENTRIES)
        )  # fmt: skip
        write_manifest(Path(folder), Header(names, 64, "png"), rows)
        before, peak_before = resident_mib(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        index = open_index(folder)
        pools = index.pools()
        index.row(ENTRIES // 2)
        seconds = time.perf_counter() - start
        assert sum(map(len, pools)) == ENTRIES
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "entries": ENTRIES,
            "open_sec": seconds,
            "resident_mib": resident_mib() - before,
            "peak_mib": peak - peak_before,
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, and write them where --json says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    parser.add_argument("--side-px", type=int, default=64, help="side of the transformed images")
    parser.add_argument("--items", type=int, default=32, help="items in one run")
    parser.add_argument("--runs", type=int, default=200, help="runs of each side")
    parser.add_argument("--alpha", type=float, default=0.2, help="share of synthetic items")
    parser.add_argument("--skip-million", action="store_true", help="leave the million entries out")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[str, Any] = {} if options.skip_million else {"million": million()}
    found["per_item"] = per_item(
        options.data, side_px=options.side_px, items=options.items, runs=options.runs, alpha=options.alpha
    )
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
