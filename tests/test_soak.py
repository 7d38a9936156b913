"""Long runs: after the first steps a training loop takes no more memory, file handles or threads."""

from __future__ import annotations

import gc
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from coloured_images import ColouredImages
from faults import held
from tiny_runs import rows, tiny_config

import classifier.training
from classifier.config import ClassifierConfig
from finegan_aug import training
from finegan_aug.data.manifest import Manifest

FULL = bool(os.environ.get("FINEGAN_AUG_FAULTS"))
STEPS, WARM, GROWTH_MIB = (3000, 500, 10.0) if FULL else (100, 40, 5.0)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="usage is read from /proc, of Linux"),
]


class Usage(NamedTuple):
    """Of this process at one moment."""

    memory_mib: float
    descriptors: int
    threads: int


def usage() -> Usage:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return Usage(int(status["VmRSS"][0]) / 1024, len(os.listdir("/proc/self/fd")), int(status["Threads"][0]))


def grown(seen: list[Usage]) -> list[str]:
    """What there is more of; of memory the lowest of each half counts, since what is freed goes back only at times."""
    half = len(seen) // 2
    early, late = (min(moment.memory_mib for moment in part) for part in (seen[:half], seen[half:]))
    growth = {"memory": late - early >= GROWTH_MIB}
    growth |= {name: len({getattr(moment, name) for moment in seen}) > 1 for name in ("descriptors", "threads")}
    return [name for name, grew in growth.items() if grew]


def watched(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Usage]:
    """Notes the usage after the warm-up and then ten times, wherever the loop calls `module.name`, once a step."""
    seen, calls, function = list[Usage](), [0], getattr(module, name)

    def noting(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] >= WARM and (calls[0] - WARM) % ((STEPS - WARM) // 10) == 0:
            gc.collect()  # what only waits for the collector is no leak
            seen.append(usage())
        return function(*given)

    monkeypatch.setattr(module, name, noting)
    return seen


def test_training_with_checkpoints_grids_and_log_lines(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch, training, "update_ema")
    every = {"log_kimg": 0.01, "checkpoint_kimg": 0.04, "grid_kimg": 0.06}
    training.train(tiny_config(batch_size=2, total_kimg=0.002 * STEPS, **every), toy_data, tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(5, STEPS + 1, 5))
    assert (tmp_path / "run" / "fakes_000000.png").exists()  # named by thousands of images
    assert len(seen) == 11
    held("long runs: no growth of memory, handles or threads", 1 - bool(grown(seen)), 1)


def test_a_classifier_with_log_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(monkeypatch, classifier.training, "seed_generators")
    images = ColouredImages(30)
    settings: dict[str, Any] = {"model": "test_efficientnet", "resolution": 24, "batch_size": 4, "threads": 1}
    config = ClassifierConfig(**settings, steps=STEPS, log_steps=5, mixup=0.0, cutmix=0.0)
    classifier.training.train_classifier(config, images, tmp_path / "run", classes=images.classes)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == STEPS // 5
    assert len(seen) == 11
    held("long runs: no growth of memory, handles or threads", 1 - bool(grown(seen)), 1)


def mapped(mib: int) -> mmap.mmap:
    """Pages of their own, written to."""
    pages = mmap.mmap(-1, mib * 2**20)
    pages.write(bytes(len(pages)))
    return pages


@pytest.mark.parametrize("leak", ["memory", "descriptors", "threads"])
def test_a_leak_is_found(leak: str) -> None:
    """What would make the tests above fail does so."""
    kept = list[Any]()
    done = threading.Event()
    leaks: dict[str, Callable[[], Any]] = {
        "memory": lambda: kept.append(mapped(5)),  # what the allocator has left over would not show
        "descriptors": lambda: kept.append(open(os.devnull)),  # noqa: SIM115
        "threads": lambda: threading.Thread(target=done.wait).start(),
    }
    seen = [usage()]
    for _ in range(5):
        leaks[leak]()
        seen.append(usage())
    done.set()
    assert leak in grown(seen)
    for stream in kept:
        getattr(stream, "close", int)()
