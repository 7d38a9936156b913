"""Several tasks at once: results under their numbers, the first error ends all, no worker outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_ablation
import torch

from finegan_aug.errors import RunLockedError
from recipes import workers
from recipes.ablation import run_ablation
from recipes.workers import each

ROOT = Path(__file__).resolve().parents[1]


def squared(number: int, threads: int) -> tuple[int, int]:
    assert torch.get_num_threads() == threads
    return number**2, os.getpid()


def failing(number: int) -> int:
    if number == 0:
        raise ValueError("task 0")
    return number


def noting(number: int, folder: Path) -> None:
    failing(number)
    (folder / str(number)).touch()
    time.sleep(1)


def test_tasks_run_in_other_processes_with_one_thread_and_come_back_under_their_numbers() -> None:
    found = dict(each(squared, [(3, 1), (4, 1), (5, 1)], jobs=2))
    assert {number: value for number, (value, _) in found.items()} == {0: 9, 1: 16, 2: 25}
    assert os.getpid() not in {process for _, process in found.values()}


@pytest.mark.parametrize(("tasks", "jobs"), [([(3,), (4,)], 1), ([(3,)], 2), ([], 2)])
def test_one_job_or_one_task_stays_in_this_process(tasks: list[tuple[int]], jobs: int) -> None:
    seen: list[int] = []

    def note(number: int) -> int:  # could not travel to another process
        seen.append(number)
        return number

    assert list(each(note, tasks, jobs)) == [(place, number) for place, (number,) in enumerate(tasks)]
    assert seen == [number for (number,) in tasks]


def test_the_error_of_a_task_is_raised_here() -> None:
    with pytest.raises(ValueError, match="task 0"):
        list(each(failing, [(0,), (1,)], jobs=2))


def test_after_an_error_no_other_task_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task 0"):
        list(each(noting, [(number, tmp_path) for number in range(6)], jobs=2))
    assert len(list(tmp_path.iterdir())) <= 2  # task 1, and what the worker of task 0 took before its error was known


@pytest.mark.fault("resume: workers of an ablation whose parent is asked to stop or was killed")
@pytest.mark.parametrize(("asked", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
@pytest.mark.parametrize("tasks", [2, 6])
def test_workers_stop_when_their_parent_is_asked_to_and_when_it_was_killed(
    tmp_path: Path, asked: signal.Signals, code: int, tasks: int
) -> None:
    """A task notes that it began and the SIGTERM it gets, and leaves as a training does; none begins after that, and no
    worker waits for more. A parent that gets SIGKILL can tell nobody.
    """
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "from recipes.workers import each\n"
        "def task(folder, number):\n"
        "    def stopped(*_):\n"
        "        open(f'{folder}/stopped-{number}', 'w').close()\n"
        "        sys.exit(143)\n"
        "    signal.signal(signal.SIGTERM, stopped)\n"
        "    with open(f'{folder}/began-{number}', 'w') as file:\n"
        "        file.write(str(os.getpid()))\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        "    from finegan_aug.leaving import leaving_on_request\n"
        "    with leaving_on_request():\n"
        f"        list(each(task, [(sys.argv[1], number) for number in range({tasks})], jobs=2))\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": path})
    try:
        wait_for(tmp_path, "began-*")
        parent.send_signal(asked)
        assert parent.wait(timeout=20) == code
    finally:
        parent.kill()
    wait_for(tmp_path, "stopped-*")
    processes = [int(file.read_text()) for file in tmp_path.glob("began-*")]
    deadline = time.monotonic() + 20
    while left := [process for process in processes if lives(process)]:
        assert time.monotonic() < deadline, f"workers {left} are still there"
        time.sleep(0.1)
    assert sorted(file.name for file in tmp_path.glob("began-*")) == ["began-0", "began-1"]


HOLDER = """
import sys, time
from pathlib import Path
from finegan_aug.run_folder import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
    time.sleep(1)
"""


def test_an_ablation_waits_for_a_worker_that_its_killed_parent_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a worker saves its step before it leaves; one that never leaves is refused by the lock of its folder."""
    manifest = tiny_ablation.scanned(tmp_path / "photographs")
    asked = tiny_ablation.options(tmp_path / "out", arms=("R1",), pairs=1)
    cell = tmp_path / "out" / "cells" / f"0.5-R1-{tiny_ablation.MODEL}-0"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(cell)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    waiting = pytest.warns(RuntimeWarning, match=f"{cell}: waiting for a worker whose parent was killed")
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        monkeypatch.setattr(workers, "ORPHANS_SEC", 0.2)
        with waiting, pytest.raises(RunLockedError, match=f"is in use by process {holder.pid} on "):
            run_ablation(asked, tiny_ablation.CONFIG, manifest, tiny_ablation.fake_sets)
        monkeypatch.undo()
        holder.stdin.close()
        with waiting:
            assert run_ablation(asked, tiny_ablation.CONFIG, manifest, tiny_ablation.fake_sets).exists()
    finally:
        holder.kill()
        holder.wait()


def lives(process: int) -> bool:
    """Whether it runs; one that ended and that nobody has asked for does not."""
    state = Path(f"/proc/{process}/stat")
    try:
        os.kill(process, 0)
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for(folder: Path, pattern: str) -> None:
    """Until both tasks have written such a file."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < 2:
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.1)
