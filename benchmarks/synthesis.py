"""Images a second of `synthesize` against the bare generator, and of one way of writing them against another.

    python -m benchmarks.synthesis --preset slim-64

Both draw blocks of 32 in eval mode with the same threads, in turns; `synthesize` also encodes and writes every image,
hashes it and writes manifest and lineage.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from finegan_aug.checkpoint import save_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import write_manifest
from finegan_aug.data.toy import TOY_CLASSES, write_toy
from finegan_aug.files import write_json
from finegan_aug.models.finegan import Generator
from finegan_aug.synthesis import BLOCK, load_generator, synthesize


def untrained_run(folder: Path, preset: str) -> Path:
    """A run folder around a generator with its first weights."""
    toy = write_toy(folder / "toy", num_train=48, num_test=12)
    data = load_data(toy / "train", test_data=toy / "test", boxes=toy / "train_boxes.csv")
    config = FineGANConfig.preset(preset).resolve(len(data.classes))
    run = folder / "run"
    tensors = {f"generator.{name}": tensor for name, tensor in Generator(config).state_dict().items()}
    save_checkpoint(run, step=1, tensors={"ema": tensors}, state={"seen_images": 32})
    write_json(run / "config.json", {"config": config.to_json()})
    write_manifest(data, run / "data.jsonl")
    return run


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="slim-64")
    parser.add_argument("--per-class", type=int, default=2 * BLOCK)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = untrained_run(folder, options.preset)
        generator = load_generator(run)
        z = torch.randn(BLOCK, generator.background_trunk.linear.in_features - generator.background_trunk.num_codes)
        child = torch.zeros(BLOCK, dtype=torch.int64)
        blocks = len(TOY_CLASSES) * -(-options.per_class // BLOCK)
        ratios = []
        for number in range(options.rounds):
            start = time.perf_counter()
            with torch.no_grad():
                for _ in range(blocks):
                    generator(z, child)
            middle = time.perf_counter()
            synthesize(run, folder / f"set-{number}", options.per_class, placement="crop")
            ratios.append((middle - start) / (time.perf_counter() - middle))
    result = {
        "preset": options.preset,
        "images": blocks * BLOCK,
        "share_of_bare_forward": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }
    print(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
