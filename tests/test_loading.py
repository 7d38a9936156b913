"""Loader workers that die, hang or throw: two lines that name the sample, or the same bits with other workers."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured_images import ColouredImages
from faults import FILE, held
from faulty_images import FAULTS, FaultyImages
from PIL import Image
from small_sets import real_folder, synthetic_folder
from start_methods import started_by
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from classifier.config import ClassifierConfig
from classifier.data import Batch, TrainSamples, TrainStream
from classifier.loading import Crew, Watched, batches
from classifier.training import train_classifier
from classifier.transforms import train_transform
from finegan_aug.data.decode import ImageError
from finegan_aug.errors import NonFiniteError, WorkerError
from finegan_aug.mixing import SyntheticMixDataset

ROOT = Path(__file__).resolve().parents[1]
BASE = ClassifierConfig(model="test_efficientnet", resolution=24, steps=6, batch_size=4, threads=1, log_steps=2)
TWO = replace(BASE, num_workers=2)
SHORT = replace(TWO, worker_timeout_sec=3)
AT = "at sample 5 of epoch 0"
LIVE = "loader workers must live as long as the training, found one that"
WORDS = {
    "SIGKILL": f"{LIVE} was killed by SIGKILL {AT}",
    "os._exit": f"{LIVE} ended with code 9 {AT}",
    "os._exit(0)": f"{LIVE} ended with code 0 {AT}",
    "exception": f"a loader worker must load every sample, found KeyError: 'no such\\nkey' {AT}",
    "hang": f"loader workers must give a batch within 3 seconds, found none {AT}",
    "SIGSTOP": f"loader workers must give a batch within 3 seconds, found none {AT}",
}
REMEDIES = {
    "exception": "correct the sample or the data set; --debug shows where it came from",
    "hang": "raise --worker-timeout-sec where a sample is slow, or --max-restarts",
    "SIGSTOP": "raise --worker-timeout-sec where a sample is slow, or --max-restarts",
}
TO_DIED = "look at the sample and at free memory, or raise --max-restarts"
LOSSES = [fault for fault in FAULTS if fault != "exception"]
ALL = bool(os.environ.get(FILE))  # `make faults` tries harder


def limited(fault: str) -> ClassifierConfig:
    """Two workers; a short limit only where it is what ends the wait, since a busy machine may pass it by itself."""
    return SHORT if fault in ("hang", "SIGSTOP") else TWO


def samples_of(data: Any, config: ClassifierConfig = BASE) -> TrainSamples:
    return TrainSamples(data, data, train_transform(config), config.seed)


def loaded(data: Any, config: ClassifierConfig) -> list[Batch]:
    with closing(batches(samples_of(data), TrainStream(config, len(data)), config)) as stream:
        return list(stream)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for ours, others in zip(first, second, strict=True) for a, b in zip(ours, others, strict=True)
    )


@pytest.mark.fault
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if ALL or fault != "hang"])
def test_a_lost_worker_ends_the_training_in_words_that_name_the_sample(fault: str, tmp_path: Path) -> None:
    data = FaultyImages(fault, tmp_path / "marker")
    started = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        train_classifier(limited(fault), data, tmp_path / "run", classes=data.classes)
    assert (caught.value.cause, caught.value.remedy) == (WORDS[fault], REMEDIES.get(fault, TO_DIED))
    assert caught.value.exit_code == 7
    assert multiprocessing.active_children() == []
    held("loader workers: lost or throwing, sample named", int(time.monotonic() - started < 30), 1)


@pytest.mark.fault
@pytest.mark.parametrize("fault", LOSSES if ALL else ["SIGKILL", "hang"])
def test_training_goes_on_bit_for_bit_with_other_workers(fault: str, tmp_path: Path) -> None:
    """As often as restarts are allowed."""
    times = 1 if limited(fault) is SHORT else 2
    whole = train_classifier(BASE, ColouredImages(12), tmp_path / "whole", classes=["red", "green", "blue"])
    data = FaultyImages(fault, tmp_path / "marker", times)
    with pytest.warns(RuntimeWarning) as warned:
        run = train_classifier(
            replace(limited(fault), max_restarts=times), data, tmp_path / "run", classes=data.classes
        )
    told = [str(warning.message) for warning in warned if warning.category is RuntimeWarning]
    assert told == [f"{WORDS[fault]}: restart {number} of {times}" for number in range(1, times + 1)]
    equal = [
        (run / name).read_bytes() == (whole / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl")
    ]
    held("loader workers: started anew, same bits", int(all(equal)), 1)


@pytest.mark.fault
@pytest.mark.skipif(not ALL, reason="part of `make faults`")
@pytest.mark.parametrize("fault", ["SIGKILL", "os._exit", "os._exit(0)"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_loss_is_noticed_however_workers_start(fault: str, method: str, tmp_path: Path) -> None:
    """Under forkserver they are no children of the main process, which hears nothing of their death."""
    data = FaultyImages(fault, tmp_path / "marker", times=1)
    with started_by(method), pytest.warns(RuntimeWarning, match=f"^{re.escape(WORDS[fault])}: restart 1 of 1"):
        found = loaded(data, replace(TWO, max_restarts=1))
    held("loader workers: started anew, same bits", int(same(found, loaded(ColouredImages(12), BASE))), 1)


def test_one_loss_more_than_restarts_is_the_end(tmp_path: Path) -> None:
    data = FaultyImages("SIGKILL", tmp_path / "marker", times=2)
    with pytest.warns(RuntimeWarning, match="restart 1 of 1"), pytest.raises(WorkerError, match="SIGKILL"):
        train_classifier(replace(TWO, max_restarts=1), data, tmp_path / "run", classes=data.classes)


def test_an_error_of_a_worker_is_not_tried_again(tmp_path: Path) -> None:
    data = FaultyImages("exception", tmp_path / "marker")
    with warnings.catch_warnings(record=True) as warned, pytest.raises(WorkerError) as caught:
        train_classifier(replace(TWO, max_restarts=3), data, tmp_path / "run", classes=data.classes)
    assert not [warning for warning in warned if warning.category is RuntimeWarning]
    assert "faulty_images.py" in caught.value.__notes__[0]  # what --debug shows


def test_a_death_amid_a_step_waits_until_the_next_batch() -> None:
    """torch would raise at once, wherever the training is; the batches that the dead had ready come from others."""
    data, before = ColouredImages(12), signal.getsignal(signal.SIGCHLD)
    config = replace(TWO, max_restarts=1)
    with closing(batches(samples_of(data), TrainStream(config, 12), config)) as stream:
        found = [next(stream)]
        victims = multiprocessing.active_children()
        assert len(victims) == 2
        for victim in victims:
            victim.kill()
            victim.join()
        with pytest.warns(
            RuntimeWarning, match=f"^{LIVE} was killed by SIGKILL at samples? .* and one that was killed"
        ):
            found += list(stream)
    assert same(found, loaded(data, BASE))
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGCHLD) not in (signal.SIG_DFL, signal.SIG_IGN) or before == signal.SIG_DFL


def test_a_death_while_workers_are_being_started_is_a_loss_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data, deaths = ColouredImages(12), [True]

    class DyingOnce(torch.utils.data.DataLoader[Batch]):
        def __iter__(self) -> Any:
            iterator = super().__iter__()
            if deaths:
                deaths.pop()
                raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
            return iterator

    monkeypatch.setattr("classifier.loading.DataLoader", DyingOnce)
    expected = f"^{LIVE} was gone at once at samples [0-9, ]* of epoch 0: restart 1 of 1"
    with pytest.warns(RuntimeWarning, match=expected):
        found = loaded(data, replace(TWO, max_restarts=1))
    assert same(found, loaded(data, BASE))
    deaths.append(True)
    with pytest.raises(WorkerError, match="was gone at once"):
        loaded(data, TWO)
    assert multiprocessing.active_children() == []


def test_another_error_while_workers_are_being_started_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: object) -> None:
        raise RuntimeError("can't start new process")

    monkeypatch.setattr("classifier.loading.DataLoader.__iter__", refused)
    with pytest.raises(RuntimeError, match=r"^can't start new process$"):
        loaded(ColouredImages(12), TWO)


def test_workers_leave_requests_to_the_main_process() -> None:
    data = ColouredImages(12)
    with closing(batches(samples_of(data), TrainStream(TWO, 12), TWO)) as stream:
        found = [next(stream), next(stream)]  # one of each worker
        for worker in multiprocessing.active_children():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(worker.pid or 0, number)
        found += list(stream)
    assert same(found, loaded(data, BASE))


def test_an_error_of_the_training_ends_the_workers_at_once(tmp_path: Path) -> None:
    """Though whoever caught it holds on to it, and with it to the loop."""
    data = ColouredImages(12)
    nan = v2.Lambda(lambda image: torch.full((3, 24, 24), float("nan")))
    with pytest.raises(NonFiniteError) as caught:
        train_classifier(TWO, data, tmp_path / "run", classes=data.classes, transform=nan)
    assert multiprocessing.active_children() == []
    assert caught.value.exit_code == 5


@pytest.mark.fault("loader workers: lost or throwing, sample named")
def test_a_lock_that_a_killed_worker_held_does_not_keep_the_training_from_ending() -> None:
    """Each worker looks now and then, under a lock, whether it should end; it was killed in that moment, and torch
    waited for the lock for ever. `make lowest` stood still."""
    crew = Crew(Watched(samples_of(ColouredImages(12)), 2), TrainStream(TWO, 12), TWO)
    crew.batch(0)
    iterator: Any = crew._iterator
    assert iterator._workers_done_event._cond.acquire(timeout=10)
    del iterator
    before, started = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still waiting")), time.monotonic()
    signal.alarm(20)
    try:
        crew.end()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 10
    assert multiprocessing.active_children() == []


class Slow(ColouredImages):
    def __getitem__(self, index: int) -> Any:
        time.sleep(0.9 if index == 5 else 0)
        return super().__getitem__(index)


def test_a_slow_sample_is_waited_for_up_to_the_limit() -> None:
    """Longer than the time between two looks at the workers."""
    assert same(loaded(Slow(12), replace(TWO, worker_timeout_sec=30)), loaded(ColouredImages(12), BASE))


class Damaged(ColouredImages):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise ImageError("E101 bee/5.png: cut off", "restore it")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_ours_keeps_type_code_and_words_from_any_number_of_workers(workers: int) -> None:
    with pytest.raises(ImageError) as caught:
        loaded(Damaged(12), replace(BASE, num_workers=workers))
    assert (caught.value.cause, caught.value.remedy) == (f"E101 bee/5.png: cut off ({AT[3:]})", "restore it")
    assert (caught.value.exit_code, caught.value.code) == (3, "E101")


def test_a_worker_at_no_sample_is_told_by_its_batch() -> None:
    watched = Watched(samples_of(ColouredImages(12)), 2)
    assert watched.where(1, [(0, 4, False), (0, 1, False), (1, 7, True)]) == "samples 4, 1 of epoch 0 and 7 of epoch 1"
    many = [(2, index, False) for index in range(20)]
    assert watched.where(1, many) == "samples 0, 1, 2, 3, 4, 5, 6, 7 of epoch 2 and 12 more"
    watched.at[1] = torch.tensor([1, 2, 9, 0])
    assert watched.where(1, many) == "sample 9 of epoch 2"


def test_a_sample_is_named_with_the_file_that_it_has_in_its_epoch(tmp_path: Path) -> None:
    real = ImageFolder(real_folder(tmp_path / "real"))
    mixed = SyntheticMixDataset(real, synthetic_folder(tmp_path / "synthetic"), alpha=0.5)
    samples = TrainSamples(mixed, real, train_transform(BASE), seed=0)
    names = []
    for epoch in range(3):
        mixed.set_epoch(epoch)
        names.append([f"sample {index} of epoch {epoch} ({mixed.samples[index][0]})" for index in range(12)])
    mixed.set_epoch(7)
    assert [[samples.name((epoch, index, False)) for index in range(12)] for epoch in range(3)] == names
    assert len({"synthetic" in name for name in names[0]}) == 2
    assert samples.name((0, 5, True)) == f"sample 5 of epoch 0 ({tmp_path / 'real' / 'bee' / '1.png'})"


class Drawing(ColouredImages):
    """A data set that draws by itself, as one with a transform of its own does."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        draws = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002
        return Image.fromarray((np.asarray(image) * (draws / 3)).astype(np.uint8)), label


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_data_set_draws_by_itself_is_the_same_from_any_number_of_workers(workers: int) -> None:
    alone = loaded(Drawing(12), BASE)
    torch.manual_seed(7)
    random.seed(7)
    assert same(loaded(Drawing(12), replace(BASE, num_workers=workers)), alone)
    assert not same(alone[:3], alone[3:])  # two epochs


WORKERS = ("--num-workers", "2", "--worker-timeout-sec", "3")
SCRIPT = """
import os, pathlib, runpy, sys, torch
torch.set_num_threads(1)
fault, times, marker = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
from classifier.data import SquareImages
from faulty_images import misbehave
inner = SquareImages.__getitem__
def faulty(self, index):
    if index == 5 and fault != "none":
        misbehave(fault, marker, times)
    return inner(self, index)
SquareImages.__getitem__ = faulty
sys.argv = ["train_classifier.py", *sys.argv[4:]]
runpy.run_module("recipes.train_classifier", run_name="__main__", alter_sys=True)
"""


def recipe_options(data: Path) -> list[str]:
    small = "--model test_efficientnet --resolution 32 --steps 6 --batch-size 8 --threads 1"
    return ["--data", str(data / "train"), "--test-data", str(data / "test"), *small.split()]


def started(fault: str, times: int, data: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    """The recipe as a user types it, in a process of its own whose sample 5 does it."""
    line = [*recipe_options(data), "--out", str(run), *more]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    script = [sys.executable, "-c", SCRIPT, fault, str(times), str(run.parent / f"{run.name}-marker"), *line]
    return subprocess.Popen(
        script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what it said; none of its processes is left behind."""
    _, said = process.communicate(timeout=120)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("fault", FAULTS if ALL else ["SIGKILL"])
def test_the_recipe_tells_a_lost_worker_in_two_lines_and_ends_with_7(
    fault: str, toy_folder: Path, tmp_path: Path
) -> None:
    code, said = ended(started(fault, 10**6, toy_folder, tmp_path / "lost", *WORKERS))
    error, fix = [line for line in said.splitlines() if line.startswith(("error: ", "fix: "))]
    assert error.startswith(f"error: {WORDS[fault]} (")
    assert error.endswith(".png)")
    assert fix == f"fix: {REMEDIES.get(fault, TO_DIED)}"
    held("loader workers: lost in the recipe", int(code == 7), 1)


TOO_SMALL = "a loader worker must find 0.1 MiB of shared memory for each batch, found No space left on device (28)"
NO_ROOM = "give /dev/shm more room (docker run --shm-size 1g), or lower --batch-size or --num-workers"
SMALL_SHM = [
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs -o size=$0 tmpfs /dev/shm && exec "$@"',
]


@pytest.mark.slow
@pytest.mark.fault("loader workers: little shared memory")
@pytest.mark.parametrize(("size", "code"), [("64m", 0), ("256k", 7)])
def test_shared_memory_that_is_too_small_is_named_at_once(
    size: str, code: int, toy_folder: Path, tmp_path: Path
) -> None:
    """As in a container, which has 64 MiB by default."""
    if subprocess.run([*SMALL_SHM, size, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no other /dev/shm can be mounted here")
    line = [
        *SMALL_SHM,
        size,
        sys.executable,
        str(ROOT / "recipes" / "train_classifier.py"),
        *recipe_options(toy_folder),
    ]
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "run"), *WORKERS, "--batch-size", "48"],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "fix: "))]
    assert told == ([] if code == 0 else [f"error: {TOO_SMALL}", f"fix: {NO_ROOM}"])


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.skipif(not ALL, reason="part of `make faults`")
@pytest.mark.parametrize("fault", LOSSES)
def test_the_recipe_goes_on_with_other_workers(fault: str, toy_folder: Path, tmp_path: Path) -> None:
    assert ended(started("none", 0, toy_folder, tmp_path / "whole"))[0] == 0
    code, said = ended(started(fault, 1, toy_folder, tmp_path / "run", *WORKERS, "--max-restarts", "1"))
    assert code == 0, said
    assert "restart 1 of 1" in said
    run, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole"))
    held("loader workers: started anew, same bits", int(run == whole), 1)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.skipif(not ALL, reason="part of `make faults`")
def test_a_request_to_the_whole_group_stops_the_recipe_and_its_workers(toy_folder: Path, tmp_path: Path) -> None:
    """As a scheduler sends it. Workers do not hear it, so only the main process can end them."""
    process = started("none", 0, toy_folder, tmp_path / "run", *WORKERS, "--steps", "100000", "--log-steps", "1")
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    code, said = ended(process)
    assert "rror" not in said
    held("resume: a request to a classifier and its loader workers", int(code == 143), 1)
