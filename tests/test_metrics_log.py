"""metrics.jsonl holds each step once, whatever happened in between."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
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


def test_lines_that_the_disk_does_not_take_wait_and_are_told_once(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    log = MetricsLog(folder / "metrics.jsonl")
    words = r"cannot write .*metrics.jsonl: No such file or directory"
    with pytest.warns(RuntimeWarning, match=f"{words}; its lines wait in memory"):
        log.append({"step": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.append({"step": 2})
    with pytest.raises(
        StorageError, match=f"{words}; free space or allow writing, then run again"
    ):  # no checkpoint without its lines
        log.length_bytes()
    folder.mkdir()
    log.append({"step": 3})
    assert steps(log.path) == [1, 2, 3]
    assert log.length_bytes() == log.path.stat().st_size


def test_a_line_is_on_disk_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """A limit of the operating system on file size stands for the full disk: it takes a part of a line."""
    script = f"""
import json, resource, signal, warnings
from pathlib import Path
from finegan_aug.metrics_log import MetricsLog
warnings.simplefilter("ignore")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = MetricsLog(Path({str(tmp_path / "metrics.jsonl")!r}))
log.append({{"step": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
log.append({{"step": 2}})
print(log.path.read_text(), end="")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(log.length_bytes())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == '{"step": 1}\n24\n'
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


def test_a_log_that_cannot_be_cut_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(
        StorageError, match=r"cannot write .*metrics.jsonl: Is a directory; free space or allow writing, then run again"
    ):
        MetricsLog(tmp_path / "metrics.jsonl")


def test_what_is_no_number_in_json_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        MetricsLog(tmp_path / "metrics.jsonl").append({"g_child": float("nan")})
