"""A generator of a few thousand weights, and what tests compare of its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint
from finegan_aug.config import FineGANConfig

BATCH = 8


def tiny_config(**values: Any) -> FineGANConfig:
    """Ten steps of 8 images at 32 px, every step logged."""
    settings: dict[str, Any] = {
        "precision": "fp32",  # the same on machines with and without matrix units for bf16
        "width": 0.05,
        "ndf": 4,
        "z_dim": 8,
        "num_parents": 4,
        "modes_per_class": 1,
        "batch_size": BATCH,
        "total_kimg": 0.08,
        "log_kimg": 0.008,
    }
    return FineGANConfig.preset("slim-32", **settings | values)


def command_line(toy_folder: Path, run: Path, *more: str) -> list[str]:
    """`tiny_config()` as a user types it."""
    text = "--preset slim-32 --width 0.05 --ndf 4 --z_dim 8 --num_parents 4 --modes_per_class 1 --batch_size 8"
    text += " --precision fp32 --total_kimg 0.08 --log_kimg 0.008 --checkpoint_kimg 0.032"
    data = ["--test_data", str(toy_folder / "test"), "--box_file", str(toy_folder / "train_boxes.csv")]
    data += ["--test_box_file", str(toy_folder / "test_boxes.csv")]
    return ["train", str(toy_folder / "train"), "--out", str(run), *data, *text.split(), *more]


def rows(run_dir: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "sec"} for line in lines]


def status(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    return content


def files(run_dir: Path) -> dict[str, bytes]:
    """Content of every visible file of a run."""
    return {
        path.relative_to(run_dir).as_posix(): path.read_bytes()
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(run_dir).parts)
    }


def assert_same_run(run_dir: Path, other: Path) -> None:
    """Networks, average, optimisers and logged terms are equal bit for bit."""
    folders = [latest_checkpoint(run_dir), latest_checkpoint(other)]
    assert folders[0] is not None
    assert folders[1] is not None
    (tensors, state), (expected, expected_state) = (load_checkpoint(folder) for folder in folders if folder)
    assert state["step"] == expected_state["step"]
    assert tensors.keys() == expected.keys() == {"model", "ema", "optim"}
    for part, group in expected.items():
        assert tensors[part].keys() == group.keys()
        for name, tensor in group.items():
            assert torch.equal(tensors[part][name], tensor), (part, name)
    assert rows(run_dir) == rows(other)
