"""Training a generator: the one loop, from top to bottom.

Everything is counted in real images. Image p of the endless stream has its epoch, crop, noise, code and augmentation
decided by (seed, p) alone, so batch size, processes and resuming change nothing but speed.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from finegan_aug.best import DistanceToPhotographs
from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.stream import RealStream
from finegan_aug.ema import ema_decay, update_ema
from finegan_aug.errors import NonFiniteError, StorageError
from finegan_aug.files import JSON
from finegan_aug.grids import COLUMNS, save_grid, write_training_grids
from finegan_aug.identity import ensure_own, identity
from finegan_aug.leaving import leaving_on_request
from finegan_aug.metrics_log import MetricsLog
from finegan_aug.output_folder import ensure_apart
from finegan_aug.preparation import (
    RunRecord,
    all_or_none,
    ensure_alike,
    make_accelerator,
    owned_run,
    settled_precision,
    settled_values,
)
from finegan_aug.progress import Progress
from finegan_aug.pseudo_labels import training_labels
from finegan_aug.sizes import check_sizes
from finegan_aug.stopping import StopRequest
from finegan_aug.strict import strict_update
from finegan_aug.term_sums import TermSums
from finegan_aug.training_state import TrainingState
from finegan_aug.update import plain_update

MAX_FAILED_SAVES = 3
MAX_ROLLBACKS = 3


def train(
    config: FineGANConfig,
    data: str | Path | Manifest,
    run_dir: str | Path,
    *,
    overwrite: bool = False,
    expect_processes: int | None = None,
    log_with: str | None = None,
) -> Path:
    """Trains a generator on the train split, or goes on where the run folder stands.

    Args:
        config: `FineGANConfig.preset(...)`; what it leaves open is counted from the data.
        data: class folders, the manifest of a scan, or a `Manifest`.
        run_dir: output folder; the same call again continues.
        overwrite: set what the folder holds aside and start anew.
        expect_processes: refuse to run with another number of processes.
        log_with: one of Accelerate's trackers beside metrics.jsonl, such as "tensorboard".

    Returns:
        The run folder.

    Raises:
        FineGANAugError: with one line of cause and one of remedy; the last good checkpoint is kept.
        SystemExit: 130 or 143 after Ctrl-C, SIGTERM or SIGUSR1, with a checkpoint at the current step.
    """
    run_dir = Path(run_dir)
    config = settled_precision(config)
    accelerator = make_accelerator(log_with, run_dir, expect_processes)
    manifest = data if isinstance(data, Manifest) else load_data(data)
    config = config.resolve(len(manifest.classes))
    ensure_apart(run_dir, manifest)
    check_sizes(config, accelerator.num_processes, len(manifest.of("train")))
    settled = settled_values(config, manifest)
    owned = owned_run(run_dir, accelerator, settled, manifest, overwrite=overwrite)
    with leaving_on_request(), owned as record:
        if log_with is not None:
            flat = {key: str(value) for key, value in config.to_json().items()}
            accelerator.init_trackers("finegan_aug", config=flat)
        last = latest_checkpoint(run_dir)
        ensure_alike(accelerator, settled, last)
        stream = real_images(accelerator, config, manifest, run_dir)
        measures = config.choose_checkpoint == "kid" and accelerator.is_main_process
        distance = DistanceToPhotographs(config, stream.crops) if measures else None
        with StopRequest() as stop:
            finished = False
            while not finished:
                try:
                    _loop(accelerator, config, stream, run_dir, last, stop, record, distance)
                    finished = True
                except NonFiniteError as error:
                    if config.on_nonfinite == "stop" or record.rollbacks == MAX_ROLLBACKS:
                        raise
                    record.rollbacks += 1
                    warnings.warn(f"{error.cause}: going back, with other noise", RuntimeWarning, stacklevel=2)
                    last = latest_checkpoint(run_dir)
        for tracker in accelerator.trackers:
            tracker.finish()  # not end_training(), which would also part the processes for whatever comes next
    return run_dir


def real_images(accelerator: Accelerator, config: FineGANConfig, manifest: Manifest, run_dir: Path) -> RealStream:
    """Opens the crop cache, cut by whichever process comes first; the main process asks the teacher for labels."""
    crops = build_crops(
        manifest,
        resolution=config.resolution,
        boxes=config.boxes,
        official=config.official_crops,
        cache_dir=run_dir / "crops",
    )
    with accelerator.main_process_first():
        labels = training_labels(config, crops, run_dir)
    if accelerator.is_main_process and not (run_dir / "reals.png").exists():
        shown = torch.arange(COLUMNS * COLUMNS) * len(crops) // (COLUMNS * COLUMNS)
        save_grid(run_dir / "reals.png", crops.objects_center_uint8(shown), COLUMNS)
    return RealStream(config, crops.to(accelerator.device), labels.to(accelerator.device))


def _loop(
    accelerator: Accelerator,
    config: FineGANConfig,
    stream: RealStream,
    run_dir: Path,
    last: Path | None,
    stop: StopRequest,
    record: RunRecord,
    distance: DistanceToPhotographs | None,
) -> None:
    # Networks and optimisers, new or from the last good checkpoint.
    main = accelerator.is_main_process
    state = TrainingState(accelerator, config)
    update = strict_update if config.shards else plain_update
    step, spent_sec, metrics_bytes, sums = 0, 0.0, 0, TermSums(alike=config.shards > 0)
    if last is not None:
        tensors, saved = load_checkpoint(last)
        ensure_own(saved.get("identity"), record.settled, accelerator.num_processes)
        state.load(tensors, saved)
        step, spent_sec, metrics_bytes = saved["step"], saved["spent_sec"], saved["metrics_bytes"]
        sums.restore(saved.get("terms"), accelerator)
        record.seen_images = saved["seen_images"]
        record.rollbacks = max(record.rollbacks, saved.get("rollbacks", 0))
    elif main:
        _draw(state.average, run_dir, "init", config)
    state.game.renew_noise(record.rollbacks)
    metrics = MetricsLog(run_dir / "metrics.jsonl", metrics_bytes) if main else None
    batch = config.batch_size
    total_images = round(config.total_kimg * 1000)
    failed_saves, started_sec = 0, time.monotonic() - spent_sec

    with Progress(total_images / 1000, initial=step * batch / 1000, label="kimg", enabled=main) as progress:
        while step * batch < total_images:
            # Both players, on the next images of the stream; hard negatives can begin with the averaged generator.
            state.set_learning_rate(config.learning_rate(step * batch))
            if step == config.hard_negative_step and config.hard_negative_from_ema:
                state.take_average()
            terms = update(accelerator, state, stream, step)

            # The averaged generator.
            step += 1
            seen = step * batch
            decay = ema_decay(batch, seen, config.ema_halflife_kimg * 1000, config.ema_ramp)
            update_ema(state.average, state.plain["generator"], decay)
            sums.add(terms)

            # Records, grids and checkpoints, each when its number of images is reached.
            exit_code = stop.agreed(accelerator)
            ending = exit_code != 0 or seen >= total_images
            due = seen >= total_images or _crossed(seen, batch, config.checkpoint_kimg)
            save = ending or due
            draw = ending or _crossed(seen, batch, config.grid_kimg)
            log = due or _crossed(seen, batch, config.log_kimg)
            progress.advance_to(seen / 1000)
            if not (log or draw):
                continue
            row = sums.mean(accelerator, seen, state.plain) if log else {}
            pending = sums.pending(accelerator, seen, state.plain) if save else None
            with all_or_none(accelerator):
                if due and distance is not None:  # who asks to stop elsewhere waits for the checkpoint alone
                    row["kid"] = distance.kid(state.average)
                spent_sec = time.monotonic() - started_sec
                if log and metrics is not None:
                    accelerator.log(row, step=seen)
                    metrics.append({"step": step, "seen_images": seen, "sec": round(spent_sec, 2), **row})
                if draw and main:
                    _draw(state.average, run_dir, f"{seen // 1000:06d}", config)
                if save and metrics is not None:
                    numbers: JSON = {"seen_images": seen, "spent_sec": spent_sec, "terms": pending}
                    numbers["identity"] = identity(record.settled, accelerator.num_processes)
                    numbers |= {"rollbacks": record.rollbacks} if record.rollbacks else {}
                    numbers |= {"kid": row["kid"]} if "kid" in row else {}
                    failed_saves = _save(state, config, run_dir, step, metrics, numbers, failed_saves, final=ending)
                    record.seen_images = record.seen_images if failed_saves else seen
            if exit_code:
                raise SystemExit(exit_code)
    record.seen_images = step * batch


def _save(
    state: TrainingState,
    config: FineGANConfig,
    run_dir: Path,
    step: int,
    metrics: MetricsLog,
    numbers: JSON,
    failed: int,
    *,
    final: bool,
) -> int:
    """Saves; a full disk in between is a warning, at the end or the third time in a row an error."""
    try:
        numbers["metrics_bytes"] = metrics.length_bytes()
        state.save(run_dir, step, numbers, config.keep_checkpoints)
    except StorageError as error:
        if final or failed + 1 >= MAX_FAILED_SAVES:
            raise
        warnings.warn(f"checkpoint at step {step} not saved: {error}", RuntimeWarning, stacklevel=2)
        return failed + 1
    return 0


def _draw(average: nn.Module, run_dir: Path, name: str, config: FineGANConfig) -> None:
    """Grids; training does not end for the want of a picture."""
    try:
        write_training_grids(average, run_dir, name, config)
    except StorageError as error:
        warnings.warn(f"images not drawn: {error.cause}", RuntimeWarning, stacklevel=2)


def _crossed(seen: int, batch: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in the last `batch` images."""
    every = max(1, round(every_kimg * 1000))
    return seen // every > (seen - batch) // every
