"""A run folder opened to draw from: its configuration and the averaged generator of its best checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from finegan_aug.checkpoint import best_checkpoint, load_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.errors import CheckpointError
from finegan_aug.files import read_json, sha256_file
from finegan_aug.models.finegan import Generator
from finegan_aug.restoring import load_into


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What a run has learned, in eval mode on the CPU."""

    folder: Path
    config: FineGANConfig
    generator: Generator
    checkpoint_sha256: str  # of the averaged generator's file
    seen_images: int


def open_run(run_dir: str | Path) -> TrainedRun:
    """Reads the configuration and the checkpoint with the lowest kernel distance; without such, the last good one.

    Raises:
        CheckpointError: the run has no checkpoint yet, or none that verifies.
    """
    folder = Path(run_dir)
    config = FineGANConfig.from_json(read_json(folder / "config.json")["config"])
    checkpoint = best_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError(
            f"{folder} must hold a checkpoint, found none", "train it first: run the train command to the end"
        )
    tensors, state = load_checkpoint(checkpoint)
    generator = Generator(config)
    load_into(generator, {name.removeprefix("generator."): t for name, t in tensors["ema"].items()})
    generator = generator.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    sha256 = sha256_file(checkpoint / "ema.safetensors")
    return TrainedRun(folder, config, generator, sha256, int(state["seen_images"]))
