"""kill -9 at random moments: the same command again ends in the bits of a run that nobody disturbed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny_ablation
from faults import held
from tiny_runs import assert_same_run, command_line, files, status

from classifier.config import ClassifierConfig
from classifier.data import SquareImages
from classifier.training import train_classifier
from finegan_aug.data.folder import load_data
from finegan_aug.files import read_json
from finegan_aug.synthetic import read_rows
from recipes.ablation import run_ablation

pytestmark = [pytest.mark.slow, pytest.mark.fault]

TESTS = Path(__file__).resolve().parent
CHAINS = 4 if os.environ.get("FINEGAN_AUG_FAULTS") else 1  # `make faults` tries harder
EVERY_STEP = ("--checkpoint_kimg", "0.008", "--grid_kimg", "0.016", "--total_kimg", "0.16")


def attempts(line: Sequence[str], seed: int = 0, longest_sec: float = 0.0) -> tuple[int, float]:
    """How often the command was killed before it ended well, and how long its last attempt took, seconds."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    script = [sys.executable, str(TESTS / "killing.py"), str(seed), str(longest_sec), *line]
    done = subprocess.run(
        script, capture_output=True, text=True, timeout=550, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed, sec = done.stdout.split()[-2:]
    return int(killed), float(sec)


def survived(row: str, line: Callable[[Path], Sequence[str]], folder: Path, same: Callable[[Path], None]) -> None:
    """A command that nobody disturbs, then the same under kills, anew in each chain; the row counts kills survived.

    A kill falls within one and a half times what the whole takes: what begins anew after each must get through once.
    """
    _, sec = attempts(line(folder / "whole"))
    killed = 0
    for seed in range(CHAINS):
        killed += attempts(line(folder / f"run-{seed}"), seed, longest_sec=1.5 * sec)[0]
        same(folder / f"run-{seed}")
    held(row, killed, killed)


def test_training(toy_folder: Path, tmp_path: Path) -> None:
    def same(run: Path) -> None:
        assert_same_run(run, tmp_path / "whole")
        assert status(run)["exit_code"] == 0

    def line(run: Path) -> list[str]:
        return ["finegan-aug", *command_line(toy_folder, run, *EVERY_STEP)]

    survived("resume: training killed", line, tmp_path, same)


def test_synthesis(trained_run: Path, tmp_path: Path) -> None:
    def line(out: Path) -> list[str]:
        return ["finegan-aug", "synthesize", str(trained_run), "--out", str(out), "--per_class", "70"]

    def same(out: Path) -> None:
        assert files(out) == files(tmp_path / "whole")
        assert len(read_rows(out)[1]) == 12 * 70
        assert not list(out.rglob(".*.tmp"))

    survived("resume: synthesis killed", line, tmp_path, same)


def classifier(words: list[str]) -> int:
    """A classifier of 30 steps on the photographs of a folder."""
    manifest = load_data(words[0])
    config = ClassifierConfig(model=tiny_ablation.MODEL, resolution=24, steps=30, batch_size=6, threads=1, log_steps=1)
    images = SquareImages(manifest, manifest.of("train"), 32)
    train_classifier(config, images, Path(words[1]), classes=manifest.classes)
    return 0


def test_a_classifier(toy_folder: Path, tmp_path: Path) -> None:
    def same(run: Path) -> None:
        for name in ("model.safetensors", "metrics.jsonl", "config.json"):
            assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name

    line = ["test_kill:classifier", str(toy_folder / "train")]
    survived("resume: classifier killed", lambda run: [*line, str(run)], tmp_path, same)


def ablation(words: list[str], jobs: int = 1) -> int:
    """Four cells on forty images; sets stand ready."""
    manifest = tiny_ablation.scanned(Path(words[0]))
    asked = tiny_ablation.options(Path(words[1]), arms=("R1", "S1"), jobs=jobs)
    run_ablation(asked, tiny_ablation.CONFIG, manifest, tiny_ablation.fake_sets)
    return 0


def test_an_ablation(tmp_path: Path) -> None:
    tiny_ablation.scanned(tmp_path / "photographs")

    def same(out: Path) -> None:
        whole = tmp_path / "whole"
        assert read_json(out / "rows.json") == read_json(whole / "rows.json")
        assert read_json(out / "opening.json")["count"] == 1
        weights = sorted(path.relative_to(whole) for path in (whole / "cells").rglob("model.safetensors"))
        assert len(weights) == 4
        for path in weights:
            assert (out / path).read_bytes() == (whole / path).read_bytes()

    line = ["test_kill:ablation", str(tmp_path / "photographs")]
    survived("resume: ablation killed", lambda out: [*line, str(out)], tmp_path, same)


@pytest.mark.skipif(CHAINS == 1, reason="`make faults` starts it; test_workers.py tries the same without killing")
def test_an_ablation_of_two_at_once(tmp_path: Path) -> None:
    """Only the parent is killed, while a worker holds a cell; typed again at once, the command is not refused."""
    words = [str(tmp_path / "photographs"), str(tmp_path / "out")]
    tiny_ablation.scanned(tmp_path / "photographs")
    ablation([words[0], str(tmp_path / "whole")])
    script = [sys.executable, "-c", f"import test_kill; test_kill.ablation({words!r}, jobs=2)"]
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    killed = 0
    for _ in range(CHAINS):
        parent = subprocess.Popen(script, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
        try:
            deadline = time.monotonic() + 120
            while not list((tmp_path / "out" / "cells").glob("*/LOCK")) and parent.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.002)
        finally:
            killed += parent.poll() is None
            parent.kill()
            parent.communicate()
    again = subprocess.run(
        script, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert again.returncode == 0, again.stderr
    assert read_json(tmp_path / "out" / "rows.json") == read_json(tmp_path / "whole" / "rows.json")
    held("resume: parent of an ablation's workers killed", killed, killed)


@pytest.mark.sockets
@pytest.mark.parametrize("job", ["training", "synthesis", "classifier"])
def test_two_processes_and_their_launcher(job: str, toy_folder: Path, trained_run: Path, tmp_path: Path) -> None:
    """Whoever of the three is killed in the middle, the same launch again goes on."""
    photographs = ["--data", str(toy_folder / "train"), "--test-data", str(toy_folder / "test")]
    _, data, _, _, *options = command_line(toy_folder, tmp_path, *EVERY_STEP, "--expect_processes", "2")
    small = "--model test_efficientnet --resolution 24 --steps 60 --batch-size 6 --threads 1 --log-steps 1"
    recipe, line = {
        "training": ("train_finegan.py", ["--data", data, *options]),
        "synthesis": ("synthesize.py", [str(trained_run), "--per_class", "100"]),
        "classifier": ("train_classifier.py", [*photographs, *small.split()]),
    }[job]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    def typed(run: Path) -> list[str]:
        return [*launch, str(TESTS.parent / "recipes" / recipe), *line, "--out", str(run)]

    whole = subprocess.run(typed(tmp_path / "whole"), capture_output=True, timeout=300, check=False)
    assert whole.returncode == 0, whole.stderr.decode()
    killed = 0
    for chain in range(CHAINS):
        run = tmp_path / f"run-{chain}"
        for number, victim in enumerate(("first", "second", "launcher"), 1):
            launcher = subprocess.Popen(typed(run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                workers = wait_for_work(launcher, recipe, run, 2 * number + chain)
                os.kill({"first": workers[0], "second": workers[1], "launcher": launcher.pid}[victim], 9)
                killed += 1
                launcher.communicate(timeout=60)
                wait_until_gone(workers)
            finally:
                launcher.kill()
        again = subprocess.run(typed(run), capture_output=True, timeout=300, check=False)
        assert again.returncode == 0, again.stderr.decode()
        if job == "training":
            assert_same_run(run, tmp_path / "whole")
        else:
            ended, expected = files(run), files(tmp_path / "whole")
            assert ended.pop("result.json", b"") != b"" or job == "synthesis"  # holds the seconds that it took
            expected.pop("result.json", None)
            assert ended == expected
    held(f"resume: two processes or their launcher killed, {job}", killed, 3 * CHAINS)


def wait_for_work(launcher: subprocess.Popen[bytes], recipe: str, run: Path, steps: int) -> list[int]:
    """Both workers in the order of their ranks, once so many lines of metrics or images are written since now."""
    begun, deadline = time.time(), time.monotonic() + 120
    while time.monotonic() < deadline:
        workers = [pid for pid in children(launcher.pid) if recipe.encode() in command_of(pid)]
        if len(workers) == 2 and written(run, begun) >= steps:
            return sorted(workers)  # torchrun starts them in the order of their ranks
        assert launcher.poll() is None, launcher.communicate()[1].decode()
        time.sleep(0.02)
    raise AssertionError(f"no {steps} lines or images after 2 minutes")


def written(run: Path, since_sec: float) -> int:
    """Lines of metrics.jsonl, or images, of files that have changed since."""
    new = [path for path in (run / "metrics.jsonl", *run.glob("*/*.png")) if changed(path) >= since_sec]
    return sum(path.read_bytes().count(b"\n") if path.suffix == ".jsonl" else 1 for path in new)


def changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # not there, or just being renamed
        return 0.0


def wait_until_gone(workers: list[int]) -> None:
    """No worker outlives its launcher for long."""
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and state_of(pid) != "Z" for pid in workers):
        assert time.monotonic() < deadline, "a worker goes on without its launcher"
        time.sleep(0.05)


def children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(folder.name))
    return found


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
