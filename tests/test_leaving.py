"""A request to stop, in whatever phase a job is: 143 at once, the folder says so, and the same command goes on."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tiny_ablation
from faults import held
from tiny_runs import assert_same_run, command_line, files, status

from finegan_aug.cli import main
from finegan_aug.files import read_json
from finegan_aug.leaving import leaving_on_request
from finegan_aug.lineage import read_lineage
from finegan_aug.synthesis import synthesize
from finegan_aug.synthetic import read_rows
from recipes.ablation import run_ablation

LEFT_WITHIN_SEC = 20  # a launcher kills after 30
ROOT = Path(__file__).resolve().parents[1]
# Asks its own process to stop where a phase begins, the first time that it does.
SCRIPT = """
import importlib, os, runpy, signal, sys, time, torch
torch.set_num_threads(1)
where, number = sys.argv[1].split(":"), int(sys.argv[2])
owner = importlib.import_module(where[0])
*path, name = where[1].split(".")
for part in path:
    owner = getattr(owner, part)
inner, asked = getattr(owner, name), []
def asking(*arguments, **options):
    if not asked:
        asked.append(True)
        print("asked at", time.time(), file=sys.stderr)
        os.kill(os.getpid(), number)
    return inner(*arguments, **options)
setattr(owner, name, asking)
sys.argv = sys.argv[3:]
if sys.argv[0] == "finegan-aug":
    from finegan_aug.cli import main
    sys.exit(main(sys.argv[1:]))
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def stopped_at(
    where: str, line: list[str], number: signal.Signals = signal.SIGTERM
) -> subprocess.CompletedProcess[str]:
    """The command, stopped at the first call of this function."""
    script = [sys.executable, "-c", SCRIPT, where, str(int(number)), *line]
    done = subprocess.run(script, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
    (asked,) = (line for line in done.stderr.splitlines() if line.startswith("asked at "))
    assert time.time() - float(asked.split()[-1]) < LEFT_WITHIN_SEC
    return done


def typed(line: list[str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, torch; torch.set_num_threads(1); from finegan_aug.cli import main; "
            "sys.exit(main(sys.argv[1:]))",
            *line,
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


TRAINING = [
    ("finegan_aug.training:build_crops", signal.SIGTERM),
    ("finegan_aug.training:training_labels", signal.SIGUSR1),
    ("finegan_aug.training:write_training_grids", signal.SIGTERM),
    ("finegan_aug.update:gradient_norm", signal.SIGUSR1),
    ("finegan_aug.training_state:save_checkpoint", signal.SIGTERM),
]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "number"), TRAINING, ids=lambda value: str(value).split(":")[-1])
@pytest.mark.fault("resume: requests to stop (SIGTERM, SIGUSR1) in every phase")
def test_training_leaves_at_a_request_in_every_phase_and_ends_in_the_same_bits(
    trained_run: Path, toy_folder: Path, tmp_path: Path, where: str, number: signal.Signals
) -> None:
    line = command_line(toy_folder, tmp_path / "run")
    done = stopped_at(where, ["finegan-aug", *line], number)
    assert done.returncode == 143, done.stderr
    told = status(tmp_path / "run")
    assert (told["state"], told["exit_code"]) == ("stopped", 143)
    assert not (tmp_path / "run" / "LOCK").exists()
    typed(line)
    assert_same_run(tmp_path / "run", trained_run)


@pytest.mark.slow
@pytest.mark.fault("resume: requests to stop (SIGTERM, SIGUSR1) in every phase")
def test_synthesis_leaves_at_a_request_and_goes_on_to_the_same_files(trained_run: Path, tmp_path: Path) -> None:
    sets = {name: ["synthesize", str(trained_run), "--out", str(tmp_path / name), "--per_class", "3"] for name in "ab"}
    done = stopped_at("finegan_aug.synthesis:write_bytes", ["finegan-aug", *sets["a"]])
    assert done.returncode == 143, done.stderr
    for line in sets.values():
        typed(line)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert not list((tmp_path / "a").rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["finegan_aug.run_evaluation:fit_judge", "finegan_aug.run_evaluation:write_json"])
@pytest.mark.fault("resume: requests to stop (SIGTERM, SIGUSR1) in every phase")
def test_evaluation_leaves_at_a_request(trained_run: Path, tmp_path: Path, where: str) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    line = ["evaluate", str(run), "--samples", "24", "--judge_kimg", "0.1", "--no-clustering"]
    done = stopped_at(where, ["finegan-aug", *line])
    assert done.returncode == 143, done.stderr
    assert not (run / "evaluation.json").exists()
    typed(line)
    assert (run / "evaluation.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["classifier.training:build_model", "classifier.training:write_bytes"])
@pytest.mark.fault("resume: requests to stop (SIGTERM, SIGUSR1) in every phase")
def test_a_classifier_leaves_at_a_request_and_ends_in_the_same_bits(
    toy_folder: Path, tmp_path: Path, where: str
) -> None:
    def line(name: str) -> list[str]:
        data = [
            "--data",
            str(toy_folder / "train"),
            "--test-data",
            str(toy_folder / "test"),
            "--out",
            str(tmp_path / name),
        ]
        small = ["--model", "test_efficientnet", "--resolution", "32", "--steps", "2"]
        return ["recipes.train_classifier", *data, "--out", str(tmp_path / name), *small]

    done = stopped_at(where, line("run"))
    assert done.returncode == 143, done.stderr
    assert not (tmp_path / "run" / "result.json").exists()
    for name in ("run", "whole"):
        again = subprocess.run(
            [sys.executable, "-m", *line(name)], capture_output=True, text=True, timeout=240, check=False, cwd=ROOT
        )
        assert again.returncode == 0, again.stderr
    run, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole"))
    assert run == whole


def leaves_at(where: str, job: Callable[[], object]) -> None:
    """The job, in this process, which is asked to stop at the first call of this function."""
    module, _, name = where.partition(":")
    inner = getattr(importlib.import_module(module), name)

    asked_sec = list[float]()

    def asking(*arguments: object, **options: object) -> object:
        asked_sec.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)
        return inner(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module(module), name, asking)
        with leaving_on_request(), pytest.raises(SystemExit) as left:
            job()
    assert left.value.code == 143
    assert time.monotonic() - asked_sec[0] < LEFT_WITHIN_SEC


FILTERING = [
    "finegan_aug.teacher:fit_teacher",
    "finegan_aug.filtering:write_manifest",
    "finegan_aug.teacher:write_lineage",
]


@pytest.mark.slow
@pytest.mark.parametrize("where", FILTERING)
@pytest.mark.fault("resume: requests to stop (SIGTERM, SIGUSR1) in every phase")
def test_filtering_leaves_at_a_request_and_the_lineage_never_knows_less_than_the_set(
    where: str, trained_run: Path, tmp_path: Path
) -> None:
    sets = {name: tmp_path / name for name in ("run", "whole")}
    jobs = {}
    for name, out in sets.items():
        synthesize(trained_run, out, per_class=3)
        words = ["filter", str(out), "--data", str(trained_run / "data.jsonl"), "--teacher-kimg", "0.1"]
        jobs[name] = partial(main, [*words, "--drop-lowest-confidence", "0.5"])
    leaves_at(where, jobs["run"])
    header, _ = read_rows(sets["run"])
    lineage = read_lineage(sets["run"])
    assert lineage is not None
    named = any("filter_teacher" in roles for roles in lineage.real_images.values())
    assert named or header.filter is None
    assert not (sets["run"] / "LOCK").exists()
    assert [job() for job in jobs.values()] == [0, 0]
    assert files(sets["run"]) == files(sets["whole"])
    assert read_rows(sets["run"])[0].filter is not None


ABLATION = [
    "recipes.sets:draw_budgets",
    "recipes.arms:SyntheticMixDataset",
    "classifier.training:write_bytes",
    "recipes.opening:count_opening",
    "recipes.opening:evaluate_classifier",
    "recipes.opening:write_facts",
]


@pytest.mark.slow
@pytest.mark.fault
def test_an_ablation_leaves_at_a_request_in_every_phase_and_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    manifest = tiny_ablation.scanned(tmp_path / "photographs")

    def job(name: str) -> Path:
        asked = tiny_ablation.options(tmp_path / name, pairs=1, arms=("R1", "S1"))
        return run_ablation(asked, tiny_ablation.CONFIG, manifest, tiny_ablation.fake_sets)

    left = 0
    for where in ABLATION:  # one after another, each further than the one before
        leaves_at(where, partial(job, "run"))
        left += 1
        assert not (tmp_path / "run" / "LOCK").exists()
        assert not (tmp_path / "run" / "rows.json").exists()
    assert read_json(job("run")) == read_json(job("whole"))
    assert read_json(tmp_path / "run" / "opening.json")["count"] == 1
    weights = [sorted((tmp_path / name / "cells").rglob("model.safetensors")) for name in ("run", "whole")]
    assert [path.read_bytes() for path in weights[0]] == [path.read_bytes() for path in weights[1]]
    assert len(weights[0]) == 2
    held("resume: requests to stop (SIGTERM, SIGUSR1) in every phase", left, len(ABLATION))


def test_only_the_first_request_is_heard_and_the_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    tidied: list[bool] = []

    def asked_twice() -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            tidied.append(True)

    with leaving_on_request(), pytest.raises(SystemExit) as left:
        asked_twice()
    assert (left.value.code, tidied) == (143, [True])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_outside_the_main_thread_requests_stay_with_the_caller() -> None:
    seen = []

    def work() -> None:
        with leaving_on_request():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
