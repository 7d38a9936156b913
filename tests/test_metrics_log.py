"""metrics.jsonl holds each step once, whatever happened in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finegan_aug.errors import StorageError
from finegan_aug.metrics_log import MetricsLog


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_came_after_the_checkpoint_is_cut_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    assert log.length_bytes() == 0
    log.append({"step": 1, "loss/x": 0.1})
    log.append({"step": 2})
    kept = log.length_bytes()
    log.append({"step": 3})
    with open(path, "a", encoding="utf-8") as stream:
        stream.write('{"step": 4, "lo')  # killed within a line
    again = MetricsLog(path, kept)
    assert steps(path) == [1, 2]
    again.append({"step": 3})
    assert steps(path) == [1, 2, 3]
    assert json.loads(path.read_text().splitlines()[0]) == {"step": 1, "loss/x": 0.1}


def test_a_run_without_a_checkpoint_starts_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append({"step": 1})
    MetricsLog(path)
    assert steps(path) == []


def test_a_log_that_was_shortened_by_hand_is_not_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    MetricsLog(path, 1000).append({"step": 2})
    assert steps(path) == [1, 2]


def test_a_disk_that_takes_no_line_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    log = MetricsLog(tmp_path / "gone" / "metrics.jsonl")
    (tmp_path / "gone").rmdir()
    with pytest.raises(
        StorageError, match=r"cannot write .*metrics.jsonl: No such file or directory; free space, then"
    ):
        log.append({"step": 1})


def test_what_is_no_number_in_json_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        MetricsLog(tmp_path / "metrics.jsonl").append({"g_child": float("nan")})
