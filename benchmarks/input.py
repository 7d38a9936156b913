"""What input costs: real crops in the generator's step, and synthetic files in a classifier's items.

    python -m benchmarks.input step --preset slim-64 --precision bf16
    python -m benchmarks.input items

`step`: the whole training step on real crops from the memory-mapped cache against the same step, of the same networks,
on one batch that stays in memory; steps alternate. Goal: 0.97 of the throughput (aim 0.99). The photographs are drawn
ones unless --data names a folder or a manifest.

`items`: time of an item of `SyntheticMixDataset`, of which the share --alpha is synthetic, against torchvision's
ImageFolder on the same files and transform; and against itself with all synthetic pixels in one memory-mapped array
instead of files. Through a DataLoader without workers, in time of this thread's processor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder

from benchmarks.contenders import Batch, Ours
from benchmarks.mixing import alternating_ratio, transform
from finegan_aug import SyntheticMixDataset
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.stream import RealBatch, RealStream
from finegan_aug.data.toy import TOY_CLASSES, ToyAnimals, write_toy
from finegan_aug.randomness import permutation, seed_for
from finegan_aug.synthetic import Header, SyntheticRow, encode, file_name, write_manifest
from finegan_aug.synthetic_index import SyntheticIndex


class InMemory(Batch):
    """One real batch that stays."""

    def __init__(self, config: FineGANConfig, size: int, batch: RealBatch) -> None:
        super().__init__(config, size)
        self.batch = batch

    def real(self) -> RealBatch:
        return self.batch


class FromCache(Batch):
    """The next real batch of a stream each time, as training takes it."""

    def __init__(self, config: FineGANConfig, size: int, stream: RealStream) -> None:
        super().__init__(config, size)
        self.size, self.stream, self.first = size, stream, 0

    def real(self) -> RealBatch:
        self.first += self.size
        return self.stream.batch(range(self.first - self.size, self.first))


def photographs(data: Path | None, resolution: int, folder: Path, images: int) -> Manifest:
    """Those of `data`, or as many drawn ones of twice the side, with boxes and masks."""
    if data is not None:
        return load_data(data)
    toy = write_toy(folder / "toy", resolution=2 * resolution, num_train=images, num_test=len(TOY_CLASSES))
    return load_data(
        toy / "train",
        test_data=toy / "test",
        boxes=toy / "train_boxes.csv",
        test_boxes=toy / "test_boxes.csv",
        masks=toy / "train_masks",
        test_masks=toy / "test_masks",
    )


def step(options: argparse.Namespace) -> dict[str, Any]:
    """Throughput on real crops as a share of that on one batch in memory; and the time of a batch by itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = FineGANConfig.preset(options.preset, precision=options.precision, boxes=options.boxes)
        manifest = photographs(options.data, config.resolution, folder, options.images)
        config = config.resolve(len(manifest.classes))
        crops = build_crops(manifest, resolution=config.resolution, boxes=config.boxes, cache_dir=folder)
        stream = RealStream(config, crops, crops.labels)
        sources = {
            "memory": InMemory(config, options.batch, stream.batch(range(options.batch))),
            "cache": FromCache(config, options.batch, stream),
        }
        ours = Ours(config, sources["cache"])
        ours.step()
        seconds: dict[str, list[float]] = {"memory": [], "cache": [], "batch alone": []}
        for turn in range(options.rounds):
            for which in ("memory", "cache") if turn % 2 else ("cache", "memory"):
                ours.batch = sources[which]
                seconds[which].append(elapsed(ours.step))
            seconds["batch alone"].append(elapsed(sources["cache"].real))
    quarters = statistics.quantiles(
        (memory / cache for memory, cache in zip(seconds["memory"], seconds["cache"], strict=True)), n=4
    )
    middle = {which: statistics.median(found) for which, found in seconds.items()}
    return {
        "preset": options.preset,
        "precision": config.precision,
        "batch": options.batch,
        "threads": options.threads,
        "rounds": options.rounds,
        "photographs": len(crops),
        "throughput_ratio_median": quarters[1],
        "throughput_ratio_quartiles": [quarters[0], quarters[2]],
        "batch_alone_share_of_step": middle["batch alone"] / middle["memory"],
        "step_sec": middle["memory"],
        "batch_alone_sec": middle["batch alone"],
    }


def elapsed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Packed(SyntheticIndex):
    """The same set with its pixels in one array uint8 [N, S, S, 3], memory-mapped."""

    def __init__(self, index: SyntheticIndex, file: Path) -> None:
        self.__dict__.update(index.__dict__)
        self.pixels = np.load(file, mmap_mode="r", allow_pickle=False)

    def image(self, entry: int, *, verify: bool = False) -> Image.Image:
        return Image.fromarray(self.pixels[entry])


def synthetic_set(root: Path, image_format: str, images: int, side_px: int) -> Path:
    """Drawn images in the layout of `synthesize`; the array for `Packed` lies beside the folder.

    The array holds what decoding gives, so that lossy formats too lead to the same items.
    """
    drawn = ToyAnimals(resolution=side_px)
    rows, pixels = [], np.empty((images, side_px, side_px, 3), np.uint8)
    for entry in range(images):
        picture, label = drawn[entry]
        name = TOY_CLASSES[label]
        file = file_name(name, label, entry, image_format)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(encode(np.asarray(picture), image_format))
        pixels[entry] = np.asarray(Image.open(root / file).convert("RGB"))
        rows.append(SyntheticRow(file, name, label, entry))
    write_manifest(root, Header(TOY_CLASSES, side_px, image_format), rows)
    np.save(root.with_suffix(".npy"), pixels, allow_pickle=False)
    return root


def items(options: argparse.Namespace) -> dict[str, Any]:
    """Ratios of time per item for each format."""
    found: dict[str, Any] = {"side_px": options.side_px, "images": options.images, "runs": options.rounds}
    found["alpha"] = options.alpha
    with tempfile.TemporaryDirectory() as folder:
        for image_format in ("png", "webp", "jpeg"):
            root = synthetic_set(Path(folder) / image_format, image_format, options.images, options.side_px)
            steps = transform(options.side_px)
            plain = ImageFolder(root, transform=steps)
            mixed, packed = (
                SyntheticMixDataset(ImageFolder(root), root, alpha=options.alpha, transform=steps) for _ in range(2)
            )
            packed.synthetic = Packed(packed.synthetic, root.with_suffix(".npy"))
            assert all(torch.equal(mixed[n][0], packed[n][0]) for n in range(8))
            order = permutation(seed_for(0, "benchmark"), len(plain))

            def read(dataset: Any, run: int, order: Any = order) -> None:
                chosen = [int(order[n % len(order)]) for n in range(run * options.batch, (run + 1) * options.batch)]
                for _ in DataLoader(Subset(dataset, chosen), batch_size=options.batch):
                    pass

            found[image_format] = {
                "mixed_over_image_folder": alternating_ratio(
                    partial(read, plain), partial(read, mixed), options.rounds
                ),
                "files_over_packed": alternating_ratio(partial(read, packed), partial(read, mixed), options.rounds),
            }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, and write them where --json says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "items"))
    parser.add_argument("--preset", default="slim-64")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--boxes", default="given", choices=("given", "from_masks", "none"))
    parser.add_argument("--data", type=Path, help="a folder of class folders, or the manifest of a scan")
    parser.add_argument("--images", type=int, default=1200, help="drawn images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side-px", type=int, default=64, help="side of the files, and of the transformed items")
    parser.add_argument("--alpha", type=float, default=1.0, help="share of synthetic items")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads if options.what == "step" else 1)
    text = json.dumps((step if options.what == "step" else items)(options), indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
