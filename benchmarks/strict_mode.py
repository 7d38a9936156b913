"""What an update of strict mode costs on one process, in processor time.

    python -m benchmarks.strict_mode --preset slim-32 --rounds 9

Plain updates and those with `--shards` take turns in one process of one thread, each on networks of its own and drawn
animals. The ratio is that of the medians, its quartiles are those of the rounds; a first round is not counted.
`benchmarks.processes --shards` measures whole trainings by the clock, and two processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from benchmarks.input import photographs
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.stream import RealStream
from finegan_aug.models.game import Terms
from finegan_aug.preparation import settled_precision
from finegan_aug.strict import strict_update
from finegan_aug.training_state import TrainingState
from finegan_aug.update import plain_update

Update = Callable[[Accelerator, TrainingState, RealStream, int], Terms]


class Contender:
    """Updates of one kind, one after another."""

    def __init__(self, update: Update, config: FineGANConfig, manifest: Manifest) -> None:
        config = settled_precision(config).resolve(len(manifest.classes))
        crops = build_crops(manifest, resolution=config.resolution, boxes=config.boxes)
        self.update, self.accelerator, self.seconds = update, Accelerator(cpu=True), list[float]()
        self.state = TrainingState(self.accelerator, config)
        self.stream = RealStream(config, crops, crops.labels)

    def step(self) -> None:
        start = time.process_time()
        self.update(self.accelerator, self.state, self.stream, len(self.seconds))
        self.seconds.append(time.process_time() - start)


def main() -> None:
    """Measure and print one table; `--json` also writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="slim-32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = FineGANConfig.preset(options.preset, batch_size=options.batch, precision=options.precision)
    with tempfile.TemporaryDirectory() as name:
        manifest = photographs(None, config.resolution, Path(name), 240)
        in_shards = replace(config, shards=options.shards)
        plain, strict = Contender(plain_update, config, manifest), Contender(strict_update, in_shards, manifest)
        for _ in range(options.rounds + 1):
            plain.step()
            strict.step()
    each = statistics.quantiles((b / a for a, b in zip(plain.seconds[1:], strict.seconds[1:], strict=True)), n=4)
    result: dict[str, object] = {
        "preset": options.preset,
        "batch": options.batch,
        "shards": options.shards,
        "rounds": options.rounds,
    }
    result |= {"precision": plain.state.game.config.precision}
    result |= {"time_ratio": statistics.median(strict.seconds[1:]) / statistics.median(plain.seconds[1:])}
    result |= {"time_ratio_quartiles": [each[0], each[2]]}
    for key, value in result.items():
        print(f"{key:<24}{value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
