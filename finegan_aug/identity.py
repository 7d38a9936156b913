"""Whose checkpoint it is: what its run had settled, and how many processes wrote it.

A checkpoint of another run can fit tensor by tensor; only what is noted here tells that it is a stranger.
"""

from __future__ import annotations

import warnings

from finegan_aug.files import JSON
from finegan_aug.preparation import ensure_same_settled


def identity(settled: JSON, processes: int) -> JSON:
    """What a checkpoint notes of its run.

    Args:
        settled: content of config.json.
        processes: that train it together.
    """
    return {"settled": settled, "processes": processes}


def ensure_own(noted: JSON | None, settled: JSON, processes: int) -> None:
    """Refuse the checkpoint of another run, and say so where another number of processes goes on with it.

    In strict mode the number of processes changes nothing.

    Args:
        noted: `identity` of the checkpoint; None where it was imported, or is older than the note.
        settled, processes: of the run that is to go on.

    Raises:
        CheckpointError: lists every difference.
    """
    if noted is None:
        return
    ensure_same_settled(noted["settled"], settled)
    if noted["processes"] != processes and not settled["config"]["shards"]:
        warnings.warn(
            f"{noted['processes']} processes wrote the checkpoint and {processes} go on: batch norm sees other groups "
            "of images, so that the run ends in slightly other numbers",
            RuntimeWarning,
            stacklevel=2,
        )
