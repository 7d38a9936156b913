"""A run folder as training leaves it, around a generator that never trained: enough for everything that reads runs."""

from __future__ import annotations

from pathlib import Path

import torch

from finegan_aug.checkpoint import save_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.files import write_json
from finegan_aug.models.finegan import Generator


def untrained_run(folder: Path, config: FineGANConfig, manifest: Manifest | None = None, *, seed: int = 0) -> Path:
    """config.json, one checkpoint and, with photographs, data.jsonl."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(config)
    with torch.no_grad():  # codes and noise must show in the pixels, as after a training
        for layer in (generator.background_image, generator.parent.image, generator.child.image):
            layer.weight.mul_(20)
    state = {f"generator.{name}": value for name, value in generator.state_dict().items()}
    save_checkpoint(folder, step=1, tensors={"ema": state}, state={"seen_images": 32}, keep=1)
    write_json(folder / "config.json", {"config": config.to_json()})
    if manifest is not None:
        write_manifest(manifest, folder / "data.jsonl")
    return folder
