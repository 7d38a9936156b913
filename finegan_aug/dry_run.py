"""What a training run would be: its settings, a few real steps across a checkpoint, and what the whole would cost."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest
from finegan_aug.preparation import launched, settled_precision
from finegan_aug.pseudo_labels import TEACHER_KIMG, asks_teacher
from finegan_aug.sizes import check_sizes
from finegan_aug.training import train

STEPS_SEC = 8.0  # what the timed steps may take together, if more than the needed two are to be timed
MAX_STEPS = 20
MAX_IMAGES = 256  # whose crops are cut; more where the codes need more
GRACE_SEC = 20.0  # torchrun kills 30 s after it was told to stop: a step and a save must fit


@dataclass(frozen=True)
class DryRunReport:
    """What a run is expected to need, from a few steps of it. Bytes and seconds."""

    step_sec: float  # one update with `batch_size` real images, all processes together
    sec_per_kimg: float
    save_sec: float  # one checkpoint
    total_sec: float  # training and checkpoints; not the teacher of unlabelled images
    memory_bytes: int  # most that this process had so far: of the GPU where there is one, else of the machine
    checkpoint_bytes: int
    crops_bytes: int
    disk_bytes: int  # crops and checkpoints at their most
    free_bytes: int  # on the disk of the run folder
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"a step takes {self.step_sec:.3f} s, the training about {self.total_sec / 3600:.2f} h, "
            f"{self.memory_bytes / 1e9:.2f} GB of memory and {self.disk_bytes / 1e9:.2f} GB of "
            f"{self.free_bytes / 1e9:.0f} GB free on the disk",
            f"{self.sec_per_kimg:.1f} s per kimg; a checkpoint is {self.checkpoint_bytes / 1e6:.1f} MB, saved in "
            f"{self.save_sec:.1f} s; the crops are {self.crops_bytes / 1e6:.1f} MB",
        ]
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings)])


def dry_run(
    config: FineGANConfig, data: str | Path | Manifest, run_dir: str | Path, *, expect_processes: int | None = None
) -> DryRunReport | None:
    """Prints the resolved settings, trains a few steps, saves, goes on from there, and projects the cost of the rest.

    Works in a folder beside `run_dir`, on the same disk, which is removed again; `run_dir` is not touched.

    Returns:
        The report; None on all processes but the first.

    Raises:
        FineGANAugError: whatever the run itself would raise at its start.
    """
    manifest = data if isinstance(data, Manifest) else load_data(data)
    resolved = settled_precision(config.resolve(len(manifest.classes)))
    state = launched()
    if state.is_main_process:
        print("\n".join(f"{name}: {json.dumps(value)}" for name, value in resolved.to_json().items()), flush=True)
    check_sizes(resolved, state.num_processes, len(manifest.of("train")))
    some = _thinned(manifest, max(MAX_IMAGES, 2 * (resolved.num_children or 0)))
    batch_kimg = resolved.batch_size / 1000
    # Every step is logged, so that its time can be read. A teacher would cost minutes once, and a step nothing.
    never = resolved.total_kimg
    short = replace(resolved, log_kimg=batch_kimg, grid_kimg=never, checkpoint_kimg=never, pseudo_labels=None)
    short = replace(short, hard_negative_kimg=0.0)  # that phase needs no more memory than the steps before it
    with _folder_beside(Path(run_dir)) as folder:
        train(replace(short, total_kimg=2 * batch_kimg), some, folder, expect_processes=expect_processes)
        steps = 4 + min(MAX_STEPS, int(STEPS_SEC / _step_sec(folder)))
        train(replace(short, total_kimg=steps * batch_kimg), some, folder)
        state.wait_for_everyone()
        if not state.is_main_process:
            return None
        report = _report(resolved, manifest, len(some.of("train")), folder)
    print(report)
    return report


def _thinned(manifest: Manifest, count: int) -> Manifest:
    """The same data with about `count` training images, never fewer, so that cutting crops takes seconds."""
    train_images = manifest.of("train")
    stride = len(train_images) // count
    return replace(manifest, images=tuple(train_images[:: max(1, stride)]))


@contextmanager
def _folder_beside(run_dir: Path) -> Iterator[Path]:
    """One temporary folder for all processes, in the nearest folder above `run_dir` that is there already."""
    above = next(folder for folder in run_dir.absolute().parents if folder.is_dir())
    main = launched().is_main_process
    shared = [tempfile.mkdtemp(prefix=".dry-run-", dir=above) if main else ""]
    broadcast_object_list(shared)
    try:
        yield Path(shared[0])
    finally:
        if main:
            shutil.rmtree(shared[0], ignore_errors=True)


def _report(config: FineGANConfig, manifest: Manifest, num_cut: int, folder: Path) -> DryRunReport:
    step_sec = _step_sec(folder)
    sec_per_kimg = step_sec * 1000 / config.batch_size
    found = latest_checkpoint(folder)
    assert found is not None
    tensors, state = load_checkpoint(found)
    started_sec = time.monotonic()
    save_checkpoint(folder / "again", step=state["step"], tensors=tensors, state={"seen_images": 0})
    save_sec = time.monotonic() - started_sec
    checkpoint_bytes = _bytes(found)
    # Every crop is about as large as those that were cut.
    crops_bytes = _bytes(folder / "crops") * len(manifest.of("train")) // num_cut
    saves = config.total_kimg / config.checkpoint_kimg
    report = DryRunReport(
        step_sec=step_sec,
        sec_per_kimg=sec_per_kimg,
        save_sec=save_sec,
        total_sec=config.total_kimg * sec_per_kimg + saves * save_sec,
        memory_bytes=_peak_memory_bytes(),
        checkpoint_bytes=checkpoint_bytes,
        crops_bytes=crops_bytes,
        disk_bytes=crops_bytes + checkpoint_bytes * (config.keep_checkpoints + 1),  # a new one before the oldest goes
        free_bytes=shutil.disk_usage(folder).free,
        warnings=(),
    )
    return replace(report, warnings=tuple(_warnings(config, manifest, report)))


def _warnings(config: FineGANConfig, manifest: Manifest, report: DryRunReport) -> Iterator[str]:
    if report.disk_bytes > report.free_bytes:
        yield "the disk is too small: free space or choose another --out"
    if report.step_sec + report.save_sec > GRACE_SEC:
        yield f"a step and a checkpoint take over {GRACE_SEC:.0f} s: a launcher that is stopped may cut them off"
    if asks_teacher(config, manifest):
        cost = f"its {TEACHER_KIMG:.0f} kimg are" if config.teacher == "own" else "that is"
        yield f"a teacher will first name unlabelled images; {cost} not counted here"


def _step_sec(folder: Path) -> float:
    """Mean time of the last steps of a training; its first ones, and those after going on, are slow."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    first, last = rows[min(3, len(rows) - 2)], rows[-1]
    sec: float = (last["sec"] - first["sec"]) / (last["step"] - first["step"])
    return max(sec, 1e-3)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
