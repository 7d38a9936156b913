"""What stands before the first step of a training run: processes, folder, settled configuration."""

from __future__ import annotations

import atexit
import json
import os
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, broadcast

from finegan_aug import __version__
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.errors import (
    CheckpointError,
    ConfigError,
    FineGANAugError,
    NonFiniteError,
    StorageError,
    WorldSizeError,
)
from finegan_aug.files import JSON, read_json, write_json
from finegan_aug.output_folder import ensure_free
from finegan_aug.packaged import LITE1, packaged_sha256
from finegan_aug.randomness import seed_for
from finegan_aug.run_folder import ensure_same_config, run_lock, write_status

# What may differ when a run goes on.
FREE_ON_RESUME = frozenset(
    {"version", *(f"config.{key}" for key in ("total_kimg", "log_kimg", "grid_kimg", "checkpoint_kimg"))}
    | {"config.keep_checkpoints", "config.compile_backend", "config.choose_checkpoint", "choice_sha256"}
    | {"config.on_nonfinite"}
)
WAITING_FOR_LAUNCHES = ("slim-32", "slim-64")  # on a GPU
# What decides the shape of the generator: all that an imported one settles for the training that goes on from it.
_OF_THE_SHAPE = ("network", "resolution", "width", "z_dim", "num_children", "num_parents", "child_to_parent")
# What belongs to one run alone; the crop cache belongs to the photographs.
OF_THE_RUN = ("checkpoints", "teacher", "*.png", "*.jsonl", "*.json")
# How long a process may be alone with a teacher or a checkpoint; NCCL's own 10 minutes are short for a teacher.
ALONE = timedelta(minutes=30)


def launched() -> PartialState:
    """The processes that were started together; on CPUs Accelerate joins them only where it is told to."""
    _part_at_exit()
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=ALONE)


@cache
def _part_at_exit() -> None:
    """Ends gloo's threads before the interpreter ends: one that outlives it now and then aborts a finished process."""

    def part() -> None:
        if dist.is_initialized() and dist.get_backend() == dist.Backend.GLOO:
            dist.destroy_process_group()

    atexit.register(part)


def make_accelerator(log_with: str | None, run_dir: Path, expect_processes: int | None) -> Accelerator:
    """Accelerate's launch, device and DDP; batch norm buffers are ours to average, and so is the precision to choose:
    Accelerate's would hold for everything that this process trains.

    Raises:
        ConfigError: the tracker is not installed.
        WorldSizeError: another number of processes than `expect_processes`, EXPECTED_WORLD_SIZE or what was launched.
    """
    trackers = sorted(str(tracker) for tracker in get_available_trackers())
    if log_with is not None and log_with not in trackers:
        raise ConfigError(
            f"log_with must be an installed tracker ({', '.join(trackers) or 'none found'}), got {log_with!r}",
            "install it or drop --log_with",
        )
    # Gradients live in the buckets they travel in: a copy there and back less, and its memory.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(
        cpu=launched().device.type == "cpu",
        mixed_precision="no",
        log_with=log_with,
        project_dir=run_dir,
        kwargs_handlers=[ddp],
    )
    started = os.environ.get("EXPECTED_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or accelerator.num_processes
    expected = expect_processes or int(started)
    if accelerator.num_processes != expected:
        raise WorldSizeError(
            f"the run must have {expected} processes as asked, found {accelerator.num_processes}",
            f"launch with torchrun --nproc_per_node {expected} (accelerate launch --cpu starts one)",
        )
    return accelerator


def has_bf16_units(device: torch.device) -> bool:
    """Whether this kind of hardware multiplies matrices of bf16."""
    return bool(torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_amx_tile_supported())


def settled_precision(config: FineGANConfig) -> FineGANConfig:
    """The configuration with `precision="auto"` decided: bf16 where the hardware has matrix units for it.

    Not for small networks on a GPU: their step waits for the launches of its kernels, of which autocast adds some. On
    an H100 at 64 px with the projected judge it took 1.77 times as long in bf16, at 32 px as long as in float32.
    """
    if config.precision != "auto":
        return config
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    waits = device.type == "cuda" and config.network in WAITING_FOR_LAUNCHES
    return replace(config, precision="bf16" if has_bf16_units(device) and not waits else "fp32")


def settled_values(config: FineGANConfig, manifest: Manifest) -> JSON:
    """What config.json of a run holds: the configuration, and what else decides what the run computes.

    Raises:
        ConfigError: the configuration needs a package that is not installed.
    """
    settled: JSON = {
        "config": config.to_json(),
        "classes": list(manifest.classes),
        "data_sha256": manifest.sha256,
        "version": __version__,
    }
    if config.judge == "projected":  # its frozen weights come from their package and stand in no checkpoint
        settled["judge_sha256"] = packaged_sha256()
    if config.teacher == "packaged":
        settled["teacher_sha256"] = packaged_sha256()
    if config.clusters:
        settled["clusters_sha256"] = packaged_sha256()
    if config.choose_checkpoint == "kid":
        settled["choice_sha256"] = packaged_sha256(LITE1)
    return settled


def settle(settled: JSON, manifest: Manifest, run_dir: Path, *, overwrite: bool) -> None:
    """Writes config.json and the data manifest, or compares them with what the folder holds.

    A run that another configuration began is set aside if it never came to a checkpoint: it has nothing to lose.

    Raises:
        CheckpointError: the folder holds a run with another configuration or other data; nothing was changed.
    """
    path = run_dir / "config.json"
    if not path.exists() and not overwrite and not (run_dir / "checkpoints").exists():
        ensure_free(
            run_dir, ("data.jsonl", "labels.json", "clusters.json", "metrics.jsonl", "status.json"), "a training run"
        )
    if path.exists() and not overwrite:
        before = read_json(path)
        if not {"config", "data_sha256"} <= before.keys():
            raise CheckpointError(f"{path} must be that of a training run, found another file", "choose another --out")
        try:
            free = FREE_ON_RESUME if before["data_sha256"] else _free_after_import(settled)
            ensure_same_settled(before, settled, free)
        except CheckpointError:
            if (run_dir / "checkpoints").exists():
                raise
            overwrite = True
    if overwrite and (path.exists() or (run_dir / "checkpoints").exists()):
        set_aside(run_dir)
    write_json(path, settled)
    write_manifest(manifest, run_dir / "data.jsonl")


def ensure_same_settled(before: JSON, settled: JSON, free: Collection[str] = FREE_ON_RESUME) -> None:
    """`ensure_same_config` for what runs settle: an option that `before` does not know counts as its default."""
    ensure_same_config(before, settled, free, {"config": FineGANConfig().to_json()})


def _free_after_import(settled: JSON) -> set[str]:
    """An imported generator was trained on data that are not known here: only its shape is settled."""
    config = {f"config.{key}" for key in settled["config"] if key not in _OF_THE_SHAPE}
    return {"classes", "data_sha256", "version"} | config


def set_aside(run_dir: Path) -> None:
    """Moves a run into a hidden folder: checkpoints first, config.json last, so that the move may break off."""
    aside = run_dir / f".overwritten-{time.time_ns()}"
    aside.mkdir()
    warnings.warn(f"the run that was in {run_dir} lies in its folder {aside.name} now", stacklevel=2)
    for pattern in OF_THE_RUN:
        for found in list(run_dir.glob(pattern)):
            os.rename(found, aside / found.name)


class RunRecord:
    """What a run has settled, and what status.json says of it from `begin` on: on processes but the first, nothing."""

    def __init__(self, settled: JSON) -> None:
        self.settled = settled
        self.run_dir: Path | None = None
        self.seen_images = 0
        self.rollbacks = 0  # how often a number that was not finite has set the run back

    def begin(self, run_dir: Path) -> None:
        """The folder is this run's: from here on its status is told."""
        self.run_dir = run_dir
        self.write("running", None)

    def write(self, state: str, exit_code: int | None, message: str = "") -> None:
        if self.run_dir is not None:
            write_status(self.run_dir, state, exit_code, self.seen_images, message)


@contextmanager
def all_or_none(accelerator: Accelerator) -> Iterator[None]:
    """Ends all processes alike where the first one fails at what it does alone; the others without a word."""
    failed: FineGANAugError | None = None
    try:
        yield
    except FineGANAugError as error:
        failed = error
    code = torch.tensor(failed.exit_code if failed else 0, device=accelerator.device)
    broadcast(code)
    if failed is not None:
        raise failed
    if int(code) == NonFiniteError.exit_code:
        raise NonFiniteError("every process must hold finite numbers, found another in the first", "see what that says")
    if int(code):
        raise SystemExit(int(code))


def ensure_alike(accelerator: Accelerator, settled: JSON, checkpoint: Path | None) -> None:
    """Refuses processes that would train apart: nodes with other options, hardware or data, or no common run folder.

    They would wait for each other for ever where one of them has fewer steps to go.

    Raises:
        StorageError: on all processes, naming what differs.
    """
    found = {
        "configuration": json.dumps(settled["config"]),
        "data": settled["data_sha256"],
        "judge": settled.get("judge_sha256", "none"),
        "teacher": settled.get("teacher_sha256", "none"),
        "clusters": settled.get("clusters_sha256", "none"),
        "checkpoint": checkpoint.name if checkpoint else "none",
    }
    own = torch.tensor([[seed_for(0, value) for value in found.values()]], device=accelerator.device)
    same = (accelerator.gather(own) == own).all(dim=0).tolist()
    differing = [name for name, equal in zip(found, same, strict=True) if not equal]
    if differing:
        raise StorageError(
            f"all {accelerator.num_processes} processes must find the same, found different {' and '.join(differing)}",
            "give every node the same options and, for --data and --out, a file system that all of them see",
        )


@contextmanager
def owned_run(
    run_dir: Path, accelerator: Accelerator, settled: JSON, manifest: Manifest, *, overwrite: bool
) -> Iterator[RunRecord]:
    """Holds the folder for this run, settles it and keeps status.json true, whatever ends the run."""
    record = RunRecord(settled)
    with ExitStack() as held:
        with all_or_none(accelerator):
            if accelerator.is_main_process:
                held.enter_context(run_lock(run_dir))
                settle(settled, manifest, run_dir, overwrite=overwrite)
                record.begin(run_dir)
        try:
            yield record
        # A disk that does not take the status either must not hide what ended the run.
        except (SystemExit, KeyboardInterrupt) as error:
            code = int(error.code or 0) if isinstance(error, SystemExit) else 130
            with suppress(StorageError):
                record.write("stopped", code, "stopped on request; run the same command to go on")
            raise
        except BaseException as error:
            code = error.exit_code if isinstance(error, FineGANAugError) else 1
            with suppress(StorageError):
                record.write("failed", code, (str(error) or type(error).__name__).splitlines()[0])
            raise
        record.write("done", 0)
