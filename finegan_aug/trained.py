"""A run folder opened to draw from: its configuration and the averaged generator of its best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from finegan_aug.checkpoint import best_checkpoint, load_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.files import read_json, sha256_file
from finegan_aug.models.finegan import Generator
from finegan_aug.restoring import load_into
from finegan_aug.typed import read_field

Built = TypeVar("Built")

_REMEDY = "restore the file, or train again with another --out"


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What a run has learned, in eval mode on the CPU."""

    folder: Path
    config: FineGANConfig
    generator: Generator
    checkpoint_sha256: str  # of the averaged generator's file
    seen_images: int


def read_run_config(run_dir: Path) -> FineGANConfig:
    """The configuration of a run, as training settled it.

    Raises:
        DataError: there is no config.json, or no configuration in it.
        CheckpointError: it is none of this program.
    """
    path = run_dir / "config.json"
    content = read_field(read_json(path), path, "config", dict)
    try:
        config = FineGANConfig.from_json(content)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error.cause}", _REMEDY) from error
    for name in ("num_children", "num_parents", "child_to_parent"):
        if getattr(config, name) is None:
            raise CheckpointError(f"{path}: {name} must be settled by a training, found null", _REMEDY)
    return config


def check_classes(run: TrainedRun, manifest: Manifest | None) -> None:
    """Refuse a run whose configuration counts other classes than its photographs have, where these are known.

    Raises:
        CheckpointError: config.json and data.jsonl do not belong together.
    """
    if manifest is not None and run.config.num_classes != len(manifest.classes):
        found = json.dumps(run.config.num_classes)
        cause = f"num_classes must be {len(manifest.classes)} as in data.jsonl, found {found}"
        raise CheckpointError(f"{run.folder / 'config.json'}: {cause}", _REMEDY)


def built(networks: Callable[[FineGANConfig], Built], config: FineGANConfig, folder: Path) -> Built:
    """The networks of a run's configuration.

    Raises:
        CheckpointError: they are too large.
    """
    try:
        return networks(config)
    except (RuntimeError, MemoryError) as error:  # torch's answer to sizes that no memory holds
        cause = f"{folder / 'config.json'}: the networks must fit into memory, they do not"
        raise CheckpointError(cause, _REMEDY) from error


def open_run(run_dir: str | Path) -> TrainedRun:
    """Reads the configuration and the checkpoint with the lowest kernel distance; without such, the last good one.

    Raises:
        DataError: config.json cannot be read.
        CheckpointError: it is damaged, or the run has no checkpoint yet, or none that verifies.
    """
    folder = Path(run_dir)
    config = read_run_config(folder)
    checkpoint = best_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError(
            f"{folder} must hold a checkpoint, found none", "train it first: run the train command to the end"
        )
    tensors, state = load_checkpoint(checkpoint)
    generator = built(Generator, config, folder)
    load_into(generator, {name.removeprefix("generator."): t for name, t in tensors["ema"].items()})
    generator = generator.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    sha256 = sha256_file(checkpoint / "ema.safetensors")
    return TrainedRun(folder, config, generator, sha256, int(state["seen_images"]))
