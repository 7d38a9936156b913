"""Several tasks of an ablation at once, each in a process of its own with one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from finegan_aug.run_folder import is_held

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

ORPHANS_SEC = 60.0  # for the workers of a killed parent to save what they have


def each(
    function: Callable[[*Arguments], Result], tasks: Sequence[tuple[*Arguments]], jobs: int
) -> Iterator[tuple[int, Result]]:
    """Number and result of each task as it ends; with one job or one task in this process, one after another.

    The first error ends the iteration; tasks that have not begun are left out. A worker whose parent is asked to stop,
    or was killed, gets SIGTERM: a training saves and stops, none begins after it, and nothing goes on unseen.
    """
    if jobs == 1 or len(tasks) < 2:
        yield from ((number, function(*task)) for number, task in enumerate(tasks))
        return
    spawn = multiprocessing.get_context("spawn")
    leaving, over = spawn.Event(), spawn.Event()
    with ProcessPoolExecutor(min(jobs, len(tasks)), spawn, initializer=_begin, initargs=(leaving, over)) as pool:
        futures = {pool.submit(_run, function, task): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            over.set()
            if not isinstance(error, Exception):
                leaving.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def wait_for_orphans(out: Path) -> None:
    """Wait until nobody works in a folder below `out`, whose own lock is held here.

    Whoever does is a worker whose parent was killed: it was told to leave, and leaves as soon as its step is saved. One
    that takes too long is left to the lock of its folder, which refuses.
    """
    deadline = time.monotonic() + ORPHANS_SEC
    for folder in sorted(lock.parent for lock in out.glob("*/**/.lock")):
        if is_held(folder):
            warnings.warn(f"{folder}: waiting for a worker whose parent was killed", RuntimeWarning, stacklevel=2)
        while is_held(folder) and time.monotonic() < deadline:
            time.sleep(0.1)


_over: Event  # in a worker: whether no further task may begin


def _run(function: Callable[[*Arguments], Result], task: tuple[*Arguments]) -> Result:
    """The task, unless all is over: one that was already on its way to this worker can no longer be cancelled.

    Whoever has lost the parent meanwhile ends here: the pool would wait for more tasks for ever.
    """
    if _over.is_set():
        raise SystemExit
    try:
        return function(*task)
    finally:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            sys.stdout.flush()
            os._exit(128 + signal.SIGTERM)


def _begin(leaving: Event, over: Event) -> None:
    import torch

    global _over
    _over = over
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    for awaited in (leaving.wait, parent.join):  # the parent asks, or is no more
        threading.Thread(target=_leave_after, args=(awaited, over), daemon=True).start()


def _leave_after(awaited: Callable[[], object], over: Event) -> None:
    awaited()
    over.set()
    os.kill(os.getpid(), signal.SIGTERM)
