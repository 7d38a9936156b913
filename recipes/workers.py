"""Several tasks of an ablation at once, each in a process of its own with one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

LOOK_SEC = 1.0  # between two looks whether the parent still runs


def each(
    function: Callable[[*Arguments], Result], tasks: Sequence[tuple[*Arguments]], jobs: int
) -> Iterator[tuple[int, Result]]:
    """Number and result of each task as it ends; with one job or one task in this process, one after another.

    The first error ends the iteration; tasks that have not begun are left out. A worker whose parent was killed gets
    SIGTERM: a training saves and stops, and nothing goes on unseen.
    """
    if jobs == 1 or len(tasks) < 2:
        yield from ((number, function(*task)) for number, task in enumerate(tasks))
        return
    spawn = multiprocessing.get_context("spawn")
    workers = ProcessPoolExecutor(min(jobs, len(tasks)), spawn, initializer=_begin, initargs=(os.getpid(),))
    with workers as pool:
        futures = {pool.submit(function, *task): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(parent: int) -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SEC)
    os.kill(os.getpid(), signal.SIGTERM)
