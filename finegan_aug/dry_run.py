"""What a training run would be: its settings, three real steps, a checkpoint, and what the whole would cost."""

from __future__ import annotations

import json
import resource
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState

from finegan_aug.checkpoint import latest_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.synthesis import load_generator
from finegan_aug.training import train


@dataclass(frozen=True)
class Projection:
    """What a run is expected to need."""

    step_sec: float  # of one update with `batch_size` real images
    training_hours: float  # without grids and checkpoints
    memory_gb: float  # most that this process had so far: of the GPU where there is one, else of the machine
    checkpoint_gb: float
    disk_gb: float  # kept checkpoints and the crop cache

    def __str__(self) -> str:
        return (
            f"a step takes {self.step_sec:.3f} s, the training about {self.training_hours:.2f} h, "
            f"{self.memory_gb:.2f} GB of memory and {self.disk_gb:.2f} GB on disk "
            f"({self.checkpoint_gb:.3f} GB a checkpoint)"
        )


def dry_run(
    config: FineGANConfig, manifest: Manifest, run_dir: Path, *, expect_processes: int | None = None
) -> Projection | None:
    """Print the resolved settings, make three steps, write and read a checkpoint, and project the cost of the rest.

    Works in `run_dir/.dry-run`, which is removed again; the run itself is not touched.

    Returns:
        The projection; None on all processes but the first.

    Raises:
        FineGANAugError: whatever the run itself would raise at its start.
    """
    resolved = config.resolve(len(manifest.classes))
    folder = run_dir / ".dry-run"
    state = PartialState(cpu=not torch.accelerator.is_available())  # without this, torchrun on CPUs counts one process
    if state.is_main_process:
        print("\n".join(f"{name}: {json.dumps(value)}" for name, value in resolved.to_json().items()))
        shutil.rmtree(folder, ignore_errors=True)
    state.wait_for_everyone()
    # A teacher for unlabelled images costs minutes once, and a step nothing.
    batch_kimg = resolved.batch_size / 1000
    short = replace(resolved, total_kimg=3 * batch_kimg, log_kimg=batch_kimg / 2, pseudo_labels=None)
    try:
        train(short, manifest, folder, expect_processes=expect_processes)
        if not state.is_main_process:
            return None
        projection = _project(resolved, folder)
        print(projection)
        return projection
    finally:
        if state.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                run_dir.rmdir()  # empty if the dry run made it


def _project(config: FineGANConfig, folder: Path) -> Projection:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    step_sec = rows[2]["sec"] - rows[1]["sec"]
    load_generator(folder)  # reads what was written, or says what is wrong with it
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    checkpoint_gb = _size_gb(checkpoint)
    # One more than is kept stands on disk for a moment.
    disk_gb = checkpoint_gb * (config.keep_checkpoints + 1) + _size_gb(folder / "crops")
    return Projection(
        step_sec=step_sec,
        training_hours=config.total_kimg * 1000 / config.batch_size * step_sec / 3600,
        memory_gb=_memory_gb(),
        checkpoint_gb=checkpoint_gb,
        disk_gb=disk_gb,
    )


def _size_gb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9


def _memory_gb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
