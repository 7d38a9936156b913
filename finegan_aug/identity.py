"""Whose checkpoint it is: what its run had settled, and how many processes wrote it.

A checkpoint of another run can fit tensor by tensor; only what is noted here tells that it is a stranger.
"""

from __future__ import annotations

import warnings

import torch

from finegan_aug.files import JSON
from finegan_aug.preparation import ensure_same_settled


def identity(settled: JSON, processes: int) -> JSON:
    """What a checkpoint notes of its run.

    Args:
        settled: content of config.json.
        processes: that train it together.
    """
    return {"settled": settled, "processes": processes, "threads": torch.get_num_threads()}


def ensure_own(noted: JSON | None, settled: JSON, processes: int) -> None:
    """Refuse the checkpoint of another run, and say so where another number of processes goes on with it.

    In strict mode the number of processes changes nothing, but that of the threads of each can.

    Args:
        noted: `identity` of the checkpoint; None where it was imported, or is older than the note.
        settled, processes: of the run that is to go on.

    Raises:
        CheckpointError: lists every difference.
    """
    if noted is None:
        return
    ensure_same_settled(noted["settled"], settled)
    strict, threads = settled["config"]["shards"] > 0, torch.get_num_threads()
    if strict and noted["threads"] != threads:
        warnings.warn(
            f"a process had threads = {noted['threads']} when it wrote the checkpoint and has {threads} now: strict "
            "mode has the same bits for one number of threads only; set OMP_NUM_THREADS",
            RuntimeWarning,
            stacklevel=2,
        )
    if not strict and noted["processes"] != processes:
        warnings.warn(
            f"{noted['processes']} processes wrote the checkpoint and {processes} go on: batch norm sees other groups "
            "of images, so that the run ends in slightly other numbers",
            RuntimeWarning,
            stacklevel=2,
        )
