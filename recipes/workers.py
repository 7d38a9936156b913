"""Several tasks of an ablation at once, each in a process of its own with one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.synchronize import Event
from typing import TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

LOOK_SEC = 1.0  # between two looks whether the parent still runs


def each(
    function: Callable[[*Arguments], Result], tasks: Sequence[tuple[*Arguments]], jobs: int
) -> Iterator[tuple[int, Result]]:
    """Number and result of each task as it ends; with one job or one task in this process, one after another.

    The first error ends the iteration; tasks that have not begun are left out. A worker whose parent is asked to stop,
    or was killed, gets SIGTERM: a training saves and stops, and nothing goes on unseen.
    """
    if jobs == 1 or len(tasks) < 2:
        yield from ((number, function(*task)) for number, task in enumerate(tasks))
        return
    spawn = multiprocessing.get_context("spawn")
    leaving = spawn.Event()
    start = (os.getpid(), leaving)
    with ProcessPoolExecutor(min(jobs, len(tasks)), spawn, initializer=_begin, initargs=start) as pool:
        futures = {pool.submit(function, *task): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            if not isinstance(error, Exception):
                leaving.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(parent: int, leaving: Event) -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_leave_with, args=(parent, leaving), daemon=True).start()


def _leave_with(parent: int, leaving: Event) -> None:
    while os.getppid() == parent and not leaving.wait(LOOK_SEC):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
