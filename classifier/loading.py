"""The batches of a training, loaded here or by workers; a worker that dies, hangs or throws ends in words.

torch tells the death of a worker by an exception wherever the main process is at that moment, also between two lines of
an optimiser step, and an error of a worker as a traceback. Here a death waits until its batch is fetched, so that the
training can go on with other workers, and errors come back as values.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import signal_handling

from finegan_aug.errors import FineGANAugError, WorkerError
from finegan_aug.leaving import REQUESTS

from .config import ClassifierConfig
from .data import Batch, Key, TrainSamples, collate

# What comes out of a loader whose worker died; which of them depends on the moment. Many are OSErrors.
LOST = (RuntimeError, OSError, EOFError)
LOOK_SEC = 0.5  # between two looks whether all workers live
SHOWN_INDICES = 8
NO_ROOM = "give /dev/shm more room (docker run --shm-size 1g), or lower --batch-size or --num-workers"


def batches(
    samples: TrainSamples, stream: Iterable[list[Key]], config: ClassifierConfig
) -> Generator[Batch, None, None]:
    """The batches of a stream of keys, the same from any number of workers. To be closed, which ends the workers.

    Args:
        samples: what the keys are of.
        stream: keys of each batch; the same each time it is gone through.
        config: `num_workers`, their `worker_timeout_sec`, and `max_restarts`.

    Raises:
        WorkerError: a worker threw, or died or hung more than `max_restarts` times; names the sample.
        FineGANAugError: an error of ours, here or in a worker, as it was, with the sample.
    """
    watched = Watched(samples, max(config.num_workers, 1))
    if not config.num_workers:
        yield from map(watched.load, stream)
        return
    crew, restarts = Crew(watched, stream, config), 0
    try:
        for step, keys in enumerate(stream):
            while (batch := crew.batch(step)) is None:
                loss = crew.loss(keys)
                crew.end()
                if restarts == config.max_restarts:
                    raise loss
                restarts += 1
                again = f"restart {restarts} of {config.max_restarts}"
                warnings.warn(f"{loss.cause}: {again}", RuntimeWarning, stacklevel=2)
            if isinstance(batch, Failure):
                batch.error.add_note(batch.trace)
                raise batch.error
            yield batch
    finally:
        crew.end()


@dataclass(frozen=True)
class Failure:
    """An error of a worker as a value, and where it came from."""

    error: FineGANAugError
    trace: str


class Watched(Dataset[Batch]):
    """Whole batches of samples; anyone can see which sample each worker is at.

    Attributes:
        at: int64 [W, 4] in shared memory: process, epoch, index, final; process 0 is at no sample.
    """

    def __init__(self, samples: TrainSamples, places: int) -> None:
        self.samples = samples
        self.at = torch.zeros(places, 4, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def load(self, keys: list[Key]) -> Batch:
        """One batch; an error of ours says at which sample."""
        try:
            return collate(self.samples.__getitems__(self._noted(keys)))
        except FineGANAugError as error:
            raise type(error)(f"{error.cause} ({self.where(os.getpid(), keys)})", error.remedy) from error

    def __getitems__(self, keys: list[Key]) -> Batch | Failure:
        """What a worker does for one batch."""
        try:
            batch = self.load(keys)
        except FineGANAugError as error:
            return Failure(error, traceback.format_exc())
        except Exception as error:
            words = f"{type(error).__name__}: {error}".partition("\n")[0]
            cause = f"a loader worker must load every sample, found {words} at {self.where(os.getpid(), keys)}"
            remedy = "correct the sample or the data set; --debug shows where it came from"
            return Failure(WorkerError(cause, remedy), traceback.format_exc())
        try:
            # torch would do so on the batch's way, where a lack of room keeps it from ever coming.
            for tensor in batch:
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            size_mib, why = sum(tensor.nbytes for tensor in batch) / 2**20, str(error).rpartition(": ")[2]
            cause = f"a loader worker must find {size_mib:.1f} MiB of shared memory for each batch, found {why}"
            return Failure(WorkerError(cause, NO_ROOM), traceback.format_exc())
        return batch

    def where(self, process: int, keys: list[Key]) -> str:
        """The sample that this process is at, or where it is at none the batch, in words."""
        for pid, epoch, index, final in self.at.tolist():
            if pid == process:
                return self.samples.name((epoch, index, bool(final)))
        return _batch_name(keys)

    def _noted(self, keys: list[Key]) -> Iterator[Key]:
        worker = get_worker_info()
        place = self.at[worker.id if worker else 0]
        for key in keys:
            place[:] = torch.tensor((os.getpid(), *key))
            yield key
        place[0] = 0


class Crew:
    """The workers of a loader, started when a batch is asked for and at that batch."""

    def __init__(self, watched: Watched, stream: Iterable[list[Key]], config: ClassifierConfig) -> None:
        self.watched, self.stream, self.config = watched, stream, config
        self._iterator: Iterator[Batch | Failure] | None = None
        self._workers: list[BaseProcess] = []
        self._hung: list[int] | None = None  # processes that were at a sample when the time was over
        self._waiting_since: float | None = None
        self._over, self._guard = threading.Event(), threading.Thread()
        self._handler: Any = None

    def batch(self, step: int) -> Batch | Failure | None:
        """The batch of this step, which must follow the one before; None where a worker is lost."""
        self._waiting_since = time.monotonic()
        try:
            if self._iterator is None:
                self._start(step)
            while self._iterator is not None:
                try:
                    return next(self._iterator)
                except LOST:
                    if self._fallen:
                        return None
                    # Nothing came within LOOK_SEC, or a worker falls at this moment.
            return None
        finally:
            self._waiting_since = None

    def loss(self, keys: list[Key]) -> WorkerError:
        """What became of the workers that should have given the batch of these keys, and at which sample."""
        if self._hung is not None:
            where = [self.watched.where(process, keys) for process in self._hung] or [_batch_name(keys)]
            return WorkerError(
                f"loader workers must give a batch within {self.config.worker_timeout_sec:g} seconds, found none at "
                f"{' and '.join(where)}",
                "raise --worker-timeout-sec where a sample is slow, or --max-restarts",
            )
        ends = [f"{_ending(worker)} at {self.watched.where(worker.pid or 0, keys)}" for worker in self._fallen]
        return WorkerError(
            "loader workers must live as long as the training, found one that "
            + (" and one that ".join(ends) or f"was gone at once at {_batch_name(keys)}"),
            "look at the sample and at free memory, or raise --max-restarts",
        )

    def end(self) -> None:
        """End all workers; `batch` starts others."""
        self._over.set()
        if self._guard.is_alive():
            self._guard.join()
        _kill(self._workers)
        if self._iterator is not None:
            _let_go(self._iterator)
        self._iterator, self._workers, self._hung = None, [], None
        if self._handler is not None:
            signal.signal(signal.SIGCHLD, self._handler)
            self._handler = None

    @property
    def _fallen(self) -> list[BaseProcess]:
        return [worker for worker in self._workers if not worker.is_alive()]

    def _start(self, step: int) -> None:
        self.watched.at.zero_()
        others = multiprocessing.active_children()
        loader = DataLoader(
            self.watched,
            batch_sampler=itertools.islice(self.stream, step, None),
            num_workers=self.config.num_workers,
            collate_fn=_as_it_is,
            timeout=LOOK_SEC,
            worker_init_fn=_begin,
            generator=torch.Generator(),  # of a seed that no sample reads; by default drawn from the global generator
        )
        iterator: Any = None
        try:
            iterator = iter(loader)
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
        self._hear_no_deaths()
        if iterator is None:  # a worker died before torch was done with starting them
            _kill([child for child in multiprocessing.active_children() if child not in others])
            return
        self._iterator, self._workers = iterator, iterator._workers
        self._over.clear()
        self._guard = threading.Thread(target=self._kill_when_late, daemon=True)
        self._guard.start()

    def _hear_no_deaths(self) -> None:
        """torch's handler, which the first loader of a process installs, raises wherever the process is."""
        try:
            self._handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        except ValueError:  # not in the main thread: torch has installed none
            self._handler = None

    def _kill_when_late(self) -> None:
        """Kill the workers once a batch is overdue: even reading from one that hangs may never end otherwise."""
        while not self._over.wait(LOOK_SEC):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self.config.worker_timeout_sec:
                self._hung = [process for process in self.watched.at[:, 0].tolist() if process]
                for worker in self._workers:
                    worker.kill()
                return


def _begin(worker: int) -> None:
    """Signals are for the main process, which ends its workers; OpenCV's threads do not survive a fork."""
    for number in (signal.SIGINT, *REQUESTS):
        signal.signal(number, signal.SIG_IGN)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)


def _kill(workers: list[BaseProcess]) -> None:
    """No request would reach one that hangs."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(5)


def _let_go(iterator: Any) -> None:
    """What torch does when it lets go of a loader's workers, but for the event by which it asks them to end: one that
    was killed may have held its lock, for which torch would wait for ever.
    """
    iterator._shutdown = True
    for queue in iterator._index_queues:
        queue.close()
    if iterator._worker_pids_set:
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False


def _as_it_is(batch: Any) -> Any:  # `Watched` has collated it
    return batch


def _ending(worker: BaseProcess) -> str:
    code = worker.exitcode or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _batch_name(keys: list[Key]) -> str:
    """`samples 4, 1 of epoch 0`; of a large batch the first indices."""
    parts = []
    for epoch, group in itertools.groupby(keys[:SHOWN_INDICES], key=lambda key: key[0]):
        parts.append(f"{', '.join(str(index) for _, index, _ in group)} of epoch {epoch}")
    more = f" and {len(keys) - SHOWN_INDICES} more" if len(keys) > SHOWN_INDICES else ""
    return f"samples {' and '.join(parts)}{more}"
