"""What stands before the first step of a training run: processes, folder, settled configuration."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from finegan_aug import __version__
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.errors import ConfigError, FineGANAugError, WorldSizeError
from finegan_aug.files import read_json, write_json
from finegan_aug.run_folder import ensure_same_config, run_lock, write_status

# What may differ when a run goes on.
FREE_ON_RESUME = frozenset(
    {"version", *(f"config.{key}" for key in ("total_kimg", "log_kimg", "grid_kimg", "checkpoint_kimg"))}
    | {"config.keep_checkpoints"}
)


def make_accelerator(log_with: str | None, run_dir: Path, expect_processes: int | None) -> Accelerator:
    """Accelerate's launch, device and DDP; batch norm buffers are ours to average.

    Raises:
        WorldSizeError: another number of processes than `expect_processes` or EXPECTED_WORLD_SIZE.
    """
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(log_with=log_with, project_dir=run_dir, kwargs_handlers=[ddp])
    expected = expect_processes or int(os.environ.get("EXPECTED_WORLD_SIZE", accelerator.num_processes))
    if accelerator.num_processes != expected:
        raise WorldSizeError(
            f"the run must have {expected} processes as asked, found {accelerator.num_processes}",
            f"launch with torchrun --nproc_per_node {expected} (accelerate launch --cpu starts one)",
        )
    return accelerator


def check_batch(config: FineGANConfig, processes: int) -> None:
    """Refuses a batch that does not divide among the processes."""
    if config.batch_size % processes:
        raise ConfigError(
            f"batch_size must be a multiple of the {processes} processes, got {config.batch_size}",
            "change --batch_size",
        )


def settle(config: FineGANConfig, manifest: Manifest, run_dir: Path, *, overwrite: bool) -> None:
    """Writes config.json and the data manifest, or compares them with what the folder holds.

    Raises:
        CheckpointError: the folder holds a run with another configuration or other data.
    """
    if overwrite:
        aside = run_dir / f".overwritten-{time.time_ns()}"
        for name in ("config.json", "metrics.jsonl", "labels.json", "teacher", "checkpoints", "reals.png"):
            if (run_dir / name).exists():
                aside.mkdir(exist_ok=True)
                os.rename(run_dir / name, aside / name)
    settled = {
        "config": config.to_json(),
        "classes": list(manifest.classes),
        "data_sha256": manifest.sha256,
        "version": __version__,
    }
    path = run_dir / "config.json"
    if path.exists():
        ensure_same_config(read_json(path), settled, FREE_ON_RESUME)
    write_json(path, settled)
    write_manifest(manifest, run_dir / "data.jsonl")


class RunRecord:
    """What status.json says of a run; on all processes but the first, nothing."""

    def __init__(self, run_dir: Path | None) -> None:
        self.run_dir = run_dir
        self.seen_images = 0

    def write(self, state: str, exit_code: int | None, message: str = "") -> None:
        if self.run_dir is not None:
            write_status(self.run_dir, state, exit_code, self.seen_images, message)


@contextmanager
def owned_run(run_dir: Path, accelerator: Accelerator) -> Iterator[RunRecord]:
    """Holds the folder for this run and keeps status.json true, whatever ends the run."""
    if not accelerator.is_main_process:
        yield RunRecord(None)
        return
    with run_lock(run_dir):
        record = RunRecord(run_dir)
        record.write("running", None)
        try:
            yield record
        except SystemExit as error:
            record.write("stopped", int(error.code or 0), "stopped on request; run the same command to go on")
            raise
        except BaseException as error:
            code = error.exit_code if isinstance(error, FineGANAugError) else 1
            record.write("failed", code, (str(error) or type(error).__name__).splitlines()[0])
            raise
        record.write("done", 0)
